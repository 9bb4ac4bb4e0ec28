"""Cloths of the demo: colours, patterns, weaves."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


def palette(text: str) -> list[np.ndarray]:
    """Colours (3, 1, 1), RGB 0..255, from hexadecimal codes; channels first, which mixes 15 times as fast."""
    return [np.float32([*bytes.fromhex(code)]).reshape(3, 1, 1) for code in text.split()]


(WHITE,) = palette("ffffff")


def phase(u: np.ndarray) -> np.ndarray:
    """Position within the period, -0.5..0.5 (several times as fast as %)."""
    return u - np.rint(u)


def petals(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    u, v = phase(u), phase(v)
    return np.hypot(u, v) < 0.22 + 0.12 * np.cos(5 * np.arctan2(v, u))


Field = Callable[[np.ndarray, np.ndarray], np.ndarray]
PLAIN, STRIPE, CHECK, DOT, CHEVRON, FLORAL = "plain (pattern)", "stripe", "check", "dot", "chevron", "floral"
PATTERNS: dict[str, Field] = {  # attribute -> weight of the second colour; u, v in periods of the pattern
    PLAIN: lambda u, v: np.zeros_like(u),
    STRIPE: lambda u, v: np.abs(phase(v)) < 0.21,
    CHECK: lambda u, v: (np.abs(phase(u)) < 0.22) * np.float32(0.5) + (np.abs(phase(v)) < 0.22) * np.float32(0.5),
    DOT: lambda u, v: phase(u) ** 2 + phase(v) ** 2 < 0.27**2,
    CHEVRON: lambda u, v: np.abs(phase(v + np.abs(phase(u)))) < 0.22,
    FLORAL: petals,
}
WEAVES: dict[str, Field] = {  # brightness; u, v in units
    "smooth": lambda u, v: np.ones_like(u),
    "knit": lambda u, v: 1 + 0.16 * np.sin(2 * np.pi * (v * 5.5 + 0.7 * np.abs(phase(u * 3)))),
    "denim": lambda u, v: 1 + 0.08 * np.sin(2 * np.pi * (u + v) * 9),
    "quilted": lambda u, v: 0.72 + 0.4 * np.sqrt(np.abs(np.sin(np.pi * v * 2.6))),
    "pleat": lambda u, v: 0.97 + 0.3 * phase(u * 4.5),
    "rib": lambda u, v: 0.85 + 0.22 * (phase(u * 9) > 0).astype(np.float32),
    "teeth": lambda u, v: 0.6 + 0.6 * (phase(v * 11) > 0).astype(np.float32),
}


class Cloth(NamedTuple):
    """Two colours mixed by a pattern, times the brightness of a weave; period and weave in units."""

    colour: np.ndarray
    other: np.ndarray = WHITE
    pattern: str = PLAIN
    weave: str = "smooth"
    period: float = 0.25
    turned: bool = False

    def at(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Colours (3, h, w) at the positions u, v (h, w), in units."""
        across, along = (v, u) if self.turned else (u, v)
        weight = PATTERNS[self.pattern](across / self.period, along / self.period).astype(np.float32)
        return (self.colour + weight * (self.other - self.colour)) * WEAVES[self.weave](u, v)

    def trim(self, factor: float, weave: str = "smooth") -> "Cloth":
        """A plain cloth for a part, visible on this one: darker, or lighter where this one is dark."""
        return Cloth(self.colour * factor + (130 if self.colour.mean() < 90 else 0), weave=weave)
