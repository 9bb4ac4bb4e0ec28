"""params.yaml as frozen dataclasses: YAML 1.2 as DVC reads it, strict keys, strict types.

`load("seed", "train")` gives a namespace with just these sections, so that a stage sees what dvc.yaml lists
for it and nothing else. What is not a section is a single value (`seed`).
"""

import dataclasses
import difflib
from math import inf, isfinite
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from fashionseg.convert.config import Images, Split
from fashionseg.core.errors import UserError
from fashionseg.core.fields import Count, Index
from fashionseg.data.config import Augment
from fashionseg.download.config import Data
from fashionseg.evaluate.config import Evaluate
from fashionseg.model.config import Model
from fashionseg.predict.config import Predict
from fashionseg.submit.config import Sending, Submission, Tune
from fashionseg.train.config import Train


@dataclasses.dataclass(frozen=True)
class Machine:
    workers: Count
    backend: Literal["tensorflow", "jax"]


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
