"""params.yaml as frozen dataclasses: YAML 1.2 as DVC reads it, strict keys, strict types.

`load("seed", "train")` gives a namespace with just these sections, so that a stage sees what dvc.yaml lists
for it and nothing else. What is not a section is a single value (`seed`).
"""

import dataclasses
import difflib
from math import inf, isfinite
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from fashionseg.errors import UserError


class Range(NamedTuple):
    least: float
    most: float = inf


Count = Annotated[int, Range(1)]
Index = Annotated[int, Range(0)]
Share = Annotated[float, Range(0, 1)]
Amount = Annotated[float, Range(0)]


@dataclasses.dataclass(frozen=True)
class Machine:
    workers: Count
    backend: Literal["tensorflow", "jax"]


@dataclasses.dataclass(frozen=True)
class Data:
    source: Literal["demo", "local", "kaggle"]
    path: str | None
    competition: str


@dataclasses.dataclass(frozen=True)
class Split:
    folds: Annotated[int, Range(2)]
    fold: Index


@dataclasses.dataclass(frozen=True)
class Images:
    side: int

    def __post_init__(self):
        if self.side < 64 or self.side % 32:
            raise ValueError(f"images.side should be a multiple of 32 from 64 on, not {self.side}")


@dataclasses.dataclass(frozen=True)
class Model:
    backbone: str
    weights: str
    weights_unused: list[str]
    fpn_channels: Count
    frozen_stages: Annotated[int, Range(0, 4)]
    frozen_norm: bool
    anchor_side: Count
    proposals: Count
    detections: Count
    attributes: Literal["none", "linear", "conv"]
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"]
    heads: Literal["v1", "v2", "v2_group", "matterport"]
    class_agnostic_masks: bool
    anchor_ratios: list[float]

    def __post_init__(self):
        if not self.anchor_ratios or min(self.anchor_ratios) <= 0:
            raise ValueError(f"model.anchor_ratios should hold at least one number above 0, not {self.anchor_ratios}")


@dataclasses.dataclass(frozen=True)
class Augment:
    policy: Literal["none", "standard"]


@dataclasses.dataclass(frozen=True)
class Train:
    epochs: Count
    batch_size: Count
    rois: Annotated[int, Range(4)]  # a quarter of them is foreground
    instances: Count
    optimizer: Literal["sgd", "adamw"]
    learning_rate: Amount
    warmup_steps: Index
    drop_epochs: list[int]
    weight_decay: Amount


@dataclasses.dataclass(frozen=True)
class Predict:
    batch_size: Count
    score: Share
    nms_iou: Share
    mask_threshold: Share
    attribute_score: Share
    flip: bool
    scales: list[float]
    models: list[str]

    def __post_init__(self):
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"predict.scales should hold at least one number above 0, not {self.scales}")


@dataclasses.dataclass(frozen=True)
class Evaluate:
    pictures: Count
    attribute_score: Share


@dataclasses.dataclass(frozen=True)
class Metric:
    formula: Literal["precision", "jaccard"]
    average: Literal["image", "class", "all"]
    f1: Literal["set", "macro", "none"]


@dataclasses.dataclass(frozen=True)
class Tune(Metric):
    folds: Annotated[int, Range(2)]
    trees: Count
    leaf: Count


@dataclasses.dataclass(frozen=True)
class Submission:
    longest_side: Count
    min_area: Count
    overlap: Literal["same_class", "any"]


@dataclasses.dataclass(frozen=True)
class Sending:
    gzip: bool


SECTIONS = {
    "seed": Index,
    "machine": Machine,
    "data": Data,
    "split": Split,
    "images": Images,
    "model": Model,
    "augment": Augment,
    "train": Train,
    "predict": Predict,
    "evaluate": Evaluate,
    "tune": Tune,
    "submission": Submission,
    "sending": Sending,
}


def load(*sections: str, path: str | Path = "params.yaml") -> SimpleNamespace:
    """The named sections of a params file; raises UserError for a key, type or value that does not fit."""
    tree = _read(Path(path))
    for key in tree:
        if key not in SECTIONS:
            raise UserError(_unknown(path, str(key), SECTIONS))
    return SimpleNamespace(**{name: _section(tree, name, path) for name in sections})


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = YAML(typ="safe").load(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; copy one from presets/.") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{path}, line {line}: {error.problem or 'this is no YAML'}.") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path} should hold sections such as 'train:', not {tree!r}.")
    return tree


def _section(tree: dict[str, Any], name: str, path: str | Path) -> Any:
    kind = SECTIONS[name]
    if name not in tree:
        raise UserError(f"{path}: '{name}' is missing; presets/ holds whole files.")
    if not dataclasses.is_dataclass(kind):
        return _checked(tree[name], kind, name, path)
    hints = get_type_hints(kind, include_extras=True)
    values = tree[name]
    if not isinstance(values, dict):
        raise UserError(f"{path}: section '{name}' should hold {', '.join(hints)}, not {values!r}.")
    for key in values:
        if key not in hints:
            raise UserError(_unknown(path, f"{name}.{key}", hints))
    if lacking := [key for key in hints if key not in values]:
        raise UserError(f"{path}: {name} lacks {', '.join(lacking)}; presets/ holds whole files.")
    try:
        return kind(**{key: _checked(values[key], hints[key], f"{name}.{key}", path) for key in hints})
    except ValueError as error:
        raise UserError(f"{path}: {error}.") from None


def _unknown(path: str | Path, key: str, known: dict[str, Any]) -> str:
    near = difflib.get_close_matches(key.rpartition(".")[2], known, 1)
    return f"{path}: unknown key '{key}'; " + (f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}.")


def _checked(value: Any, kind: Any, key: str, path: str | Path) -> Any:
    if not _is(value, kind):
        raise UserError(f"{path}: {key} should be {_named(kind)}, not {value!r}.")
    base = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return float(value) if base is float else value


def _is(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Annotated:
        base, limits = get_args(kind)
        return _is(value, base) and limits.least <= value <= limits.most
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_is(item, get_args(kind)[0]) for item in value)
    if get_args(kind):  # a union
        return any(_is(value, option) for option in get_args(kind))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _named(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        base, (least, most) = get_args(kind)
        return f"{_named(base)} from {least:g} " + ("on" if most == inf else f"to {most:g}")
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    if get_origin(kind) is list:
        return f"a list of {_named(get_args(kind)[0]).removeprefix('a ')}s"
    if get_args(kind):
        return " or ".join(map(_named, get_args(kind)))
    return {int: "a whole number", bool: "true or false", float: "a number", str: "text", type(None): "null"}[kind]
