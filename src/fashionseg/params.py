"""params.yaml as frozen dataclasses: YAML 1.2 as DVC reads it, strict keys, strict types.

No stage depends on this file: it adds nothing to the values that DVC tracks.

`load("seed", "train")` gives a namespace with just these sections, so that a stage sees what dvc.yaml lists
for it and nothing else. What is not a section is a single value (`seed`).
"""

import dataclasses
import difflib
import re
import sys
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import yaml

from fashionseg.convert.config import Images, Split
from fashionseg.core import files
from fashionseg.core.errors import UserError
from fashionseg.core.fields import Count, Index, Range
from fashionseg.data.config import Augment
from fashionseg.download.config import Data
from fashionseg.evaluate.config import Evaluate
from fashionseg.model.config import Model
from fashionseg.predict.config import Predict
from fashionseg.submit.config import Sending, Submission, Tune
from fashionseg.train.config import Train


@dataclasses.dataclass(frozen=True)
class Machine:
    workers: Index
    dask: str | None
    backend: Literal["tensorflow", "jax"]
    allow_cpu: bool
    checkpoint_steps: Count
    tracker: Literal["wandb", "mlflow"] | None


NULL = "tag:yaml.org,2002:null"
SECTIONS = {
    "seed": Annotated[int, Range(0, 2**32 - 1)],  # NumPy's and scikit-learn's
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
    """The named sections of a params file; raises UserError for a key, type or value of any section that is wrong."""
    tree = _read(Path(path))
    for key in tree:
        if key not in SECTIONS:
            raise UserError(_unknown(path, str(key), SECTIONS))
    read = {name: _section(tree, name, path) for name in SECTIONS if name in tree or name in sections}
    if {"images", "predict"} <= read.keys():  # before the training, too, as an error after it comes late
        try:
            read["predict"].sides(read["images"].side)
        except ValueError as error:
            raise UserError(f"{path}: {error}.") from None
    return SimpleNamespace(**{name: read[name] for name in sections})


def apply(preset: str | Path, path: str | Path = "params.yaml") -> list[str]:
    """Writes the values of a preset into a params file, whose other lines and comments stay; returns what changed.

    A preset holds sections with some of their keys. Raises UserError for a key that the params file lacks and for a
    value that does not fit; then the file is as it was.
    """
    from ruamel.yaml import YAML

    overlay, changed = _read(Path(preset)), []
    _read(Path(path))  # raises UserError where it is no YAML, which the writer would not word for a user
    writer = YAML()
    writer.preserve_quotes, writer.width = True, 1000
    writer.representer.add_representer(type(None), lambda writer, _: writer.represent_scalar(NULL, "null"))
    tree = writer.load(Path(path))
    for section, values in overlay.items():
        alone = not isinstance(values, dict)  # as seed
        for key, value in {section: values}.items() if alone else values.items():
            within, name = (tree, section) if alone else (tree.get(section), f"{section}.{key}")
            if not isinstance(within, dict) or key not in within:
                raise UserError(f"{preset}: {path} has no key '{name}'.")
            if within[key] != value:
                changed.append(f"{name}: {_shown(within[key])} -> {_shown(value)}")
                if isinstance(value, list) and value and isinstance(within[key], list):
                    within[key][:] = value  # stays on its line
                elif isinstance(value, dict) and isinstance(within[key], dict):
                    within[key].clear()
                    within[key].update(value)
                else:
                    if isinstance(value, list):
                        within.ca.items.pop(key, None)  # a comment between the key and [] is no YAML
                    within[key] = value
    with files.replacing(path) as beside:
        writer.dump(tree, beside)
        try:
            load(*SECTIONS, path=beside)
        except UserError as error:
            raise UserError(str(error).replace(str(beside), str(preset))) from None
    return changed


def _shown(value: Any) -> str:
    """A value as YAML has it."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain scalars, as DVC reads them: 1e-4 is a number, off is text, a key stands once."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise yaml.MarkedYAMLError(
                    problem=f"'{key}' stands twice", problem_mark=node.value[place][0].start_mark
                )
        return super().construct_mapping(node, deep)


for _kind, _pattern in {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^({_pattern})$"), None)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: _integer(node.value))


def _integer(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_bytes(), _Loader)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `git checkout HEAD {path}` brings it back.") from None
    except PermissionError:  # `errors.reported` tells what to do
        raise
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{path}, line {line}: {error.problem or 'not YAML'}.") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as UTF-8 text ({reason}); save it as UTF-8.") from None
    except (ValueError, AttributeError) as error:  # of a tag, as in !!int ten
        raise UserError(f"{path} has a value that is not what it is called: {error}.") from None
    if tree is None:
        raise UserError(
            f"{path} is empty; `git checkout HEAD {path}` brings it back. DVC empties it while another `dvc exp run` "
            "works here: run one experiment a folder, queue the others."
        )
    if not isinstance(tree, dict):
        raise UserError(f"{path} should hold sections such as 'train:', not {tree!r}.")
    return tree


def _section(tree: dict[str, Any], name: str, path: str | Path) -> Any:
    kind = SECTIONS[name]
    if name not in tree:
        raise UserError(f"{path}: '{name}' is missing; `git diff {path}` shows what was there.")
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
        raise UserError(f"{path}: {name} lacks {', '.join(lacking)}; `git diff {path}` shows what was there.")
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
    if get_origin(kind) is dict:
        names, of = get_args(kind)
        return isinstance(value, dict) and all(_is(name, names) and _is(item, of) for name, item in value.items())
    if get_args(kind):  # a union
        return any(_is(value, option) for option in get_args(kind))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, kind)


def _named(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        base, (least, most) = get_args(kind)
        return f"{_named(base)} from {least} " + ("on" if most == inf else f"to {most}")
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    if get_origin(kind) is list:
        return f"a list of {_named(get_args(kind)[0]).removeprefix('a ')}s"
    if get_origin(kind) is dict:
        return f"{{name: value}}, each {_named(get_args(kind)[1])}"
    if get_args(kind):
        return " or ".join(map(_named, get_args(kind)))
    return {
        int: "a whole number",
        bool: "true or false",
        float: "a number",
        str: "text",
        dict: "a mapping",
        type(None): "null",
    }[kind]
