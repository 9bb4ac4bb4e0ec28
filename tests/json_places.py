"""All places of a JSON value, to try what is not meant to stand there."""

import copy
from collections.abc import Iterator
from typing import Any

ODD = [None, -1, 1.5, "", "x", [], {}, [None], True, float("nan")]


def places(value: Any, keys: tuple = ()) -> Iterator[tuple]:
    """The keys that lead to each value within, from the whole on."""
    yield keys
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*keys, key))


def changed(value: Any, keys: tuple, new: Any) -> Any:
    """A copy with another value at the place that the keys lead to."""
    if not keys:
        return new
    value = copy.copy(value)
    value[keys[0]] = changed(value[keys[0]], keys[1:], new)
    return value
