"""What a JSON value should be, as a pattern of Python types, and where it differs."""

from dataclasses import dataclass
from itertools import cycle
from math import inf
from typing import Any

FLAG = frozenset((0, 1))  # or false and true, which are equal to them
NAMED = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class Nullable:
    """A schema, or null."""

    schema: Any


def mismatch(value: Any, schema: Any) -> str:
    """Where and how a JSON value first differs from a schema; '' if it matches.

    A schema is a type (float also takes whole numbers), {key: schema} where 'key?' may be missing, {str: schema} for
    any keys, [schema] for a list of any length, (schema, schema, ...) for one of that length, FLAG or a Nullable.
    """
    fault = _mismatch(value, schema)
    return fault.removeprefix(".") if fault[:1] in ("", ".", "[") else f"it{fault}"


def _mismatch(value: Any, schema: Any) -> str:
    if isinstance(schema, Nullable):
        return "" if value is None else _mismatch(value, schema.schema)
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return _fault("an object", value)
        for key, of_key in (dict.fromkeys(value, schema[str]) if str in schema else schema).items():
            name = key if str in schema else key.removesuffix("?")
            if name not in value:
                if name == key:
                    return f" has no '{name}'"
            elif fault := _mismatch(value[name], of_key):
                return f".{name}{fault}"
    elif isinstance(schema, list | tuple):
        if not isinstance(value, list) or (isinstance(schema, tuple) and len(value) != len(schema)):
            return _fault(f"a list of {len(schema)}" if isinstance(schema, tuple) else "a list", value)
        for number, (item, of_item) in enumerate(zip(value, cycle(schema), strict=False)):
            if fault := _mismatch(item, of_item):
                return f"[{number}]{fault}"
    elif schema is FLAG:
        return "" if isinstance(value, int) and value in FLAG else _fault("0 or 1", value)
    elif type(value) not in ((int, float) if schema is float else (schema,)) or _unbounded(value):
        return _fault(NAMED[schema], value)
    return ""


def _unbounded(value: Any) -> bool:
    """A whole number of more than 64 bits, which NumPy does not take, infinity or NaN."""
    return type(value) in (int, float) and not abs(value) < (2**63 if type(value) is int else inf)


def _fault(expected: str, value: Any) -> str:
    return f" should be {expected}, not {repr(value)[:60]}"
