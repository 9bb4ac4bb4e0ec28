"""The same picture under several ids, found by what it shows, so that no copy of a training picture validates."""

from concurrent.futures import ThreadPoolExecutor
from math import sqrt
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image
from rich.progress import track
from sklearn.cluster import DBSCAN, AgglomerativeClustering

from fashionseg.core import pictures
from fashionseg.core.errors import UserError

SIDE = 16  # of the hash: 256 bits; with the usual 64 the nearest different street photographs were 2 bits from a copy
# Bits in which two hashes of one picture may differ. Copies saved smaller, stretched by 3 %, brighter or with a mark
# differed by at most 32, cut by 2 % on each side by 42; different pictures, of street photographs, by 76 at least.
NEAR = 56
# A row of more pictures than this, each near the next one, is of garments on a plain background, not of copies.
ROW = 10


def groups(images: dict[str, Path], workers: int) -> dict[str, str]:
    """Id -> the first of the ids whose pictures show the same, its own for most; what cannot be decoded is left out.

    The same: imagehash's DCT hashes differ in at most NEAR bits, directly or over others between; in a group of more
    than ROW hashes any two of them.
    """
    names = sorted(images)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        hashes = pool.map(_hash, [images[name] for name in names])
        hashed = {
            n: h for n, h in zip(names, track(hashes, "comparing pictures", len(names)), strict=True) if h is not None
        }
    if not hashed:
        return {}
    bits, place = np.unique(np.array(list(hashed.values())), axis=0, return_inverse=True)
    cluster = _clusters(bits.astype(np.float32))[place]
    first: dict[int, str] = {}
    return {name: first.setdefault(number, name) for name, number in zip(hashed, cluster.tolist(), strict=True)}


def _clusters(bits: np.ndarray) -> np.ndarray:
    """A number (n,) for each hash of zeros and ones (n, SIDE * SIDE), alike where they show the same."""
    # Between such points Euclid's distance is the root of the number of differing bits.
    rows = DBSCAN(sqrt(NEAR + 0.5), min_samples=1, algorithm="brute").fit_predict(bits)
    clusters = rows.copy()
    for row in np.flatnonzero(np.bincount(rows) > ROW):
        split = AgglomerativeClustering(None, metric="l1", linkage="complete", distance_threshold=NEAR + 0.5)
        clusters[rows == row] = clusters.max() + 1 + split.fit_predict(bits[rows == row])
    return clusters


def _hash(path: Path) -> np.ndarray | None:
    try:
        image = pictures.read(path, side=4 * SIDE)  # imagehash looks at it at that side
    except UserError:
        return None
    return imagehash.phash(Image.fromarray(image), SIDE).hash.ravel()
