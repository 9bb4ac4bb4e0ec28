"""`inference.predict` by the workers of a Dask cluster: each loads the networks and takes one batch after another.

The module imports no Keras, as a worker has to start it on the backend of the stage.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import joblib
from rich.progress import track

from fashionseg.core import backend
from fashionseg.core.errors import UserError
from fashionseg.predict.config import Predict

if TYPE_CHECKING:
    from fashionseg.predict.inference import Subset

_one = Lock()  # a worker may have many threads, and has one network


@dataclass(frozen=True, eq=False)  # eq: each request is another one, and stays the same on a worker
class Request:
    """What a worker needs to know beside the number of a batch; the cluster hands it out once."""

    backend: str
    images: list[dict[str, Any]]  # of the COCO document
    places: dict[int, Path]  # their folders by side
    folders: Sequence[Path]
    params: Predict


def predict(
    document: dict[str, Any],
    images_for: Callable[[int], Path],
    folders: Sequence[Path],
    params: Predict,
    target: str | Path,
) -> int:
    """As `inference.predict`, on the cluster that `cluster.joined` has joined; each goes on where the other was killed.

    Raises UserError where a worker has Keras on another backend.
    """
    from fashionseg.predict.inference import Subset

    subset = Subset(document, images_for, folders, params, workers=0)
    places = {side: images_for(side) for side in subset.predictor.sides}
    request = Request(backend.available(), document["images"], places, folders, params)
    with subset.parts(target) as parts, joblib.parallel_config(backend="dask", scatter=[request]):
        left = range(parts.count(), len(subset))
        tasks = (joblib.delayed(_results)(request, index) for index in left)
        # One task a batch, as each takes seconds; in their order, since `parts` are.
        done = joblib.Parallel(batch_size=1, return_as="generator")(tasks)
        for index, results in zip(left, track(done, "predict", len(left)), strict=True):
            parts.add(index, results)
        return parts.join()


def _results(request: Request, index: int) -> list[dict[str, Any]]:
    """The COCO results of batch `index`, on a worker."""
    with _one:
        subset = _subset(request)
    batches = subset[index]
    with _one:
        detections = subset.predictor.detect(batches)
    return subset.results(index, detections)


@lru_cache(maxsize=1)  # an earlier request's networks go
def _subset(request: Request) -> "Subset":
    backend.choose(request.backend)
    if backend.available() != request.backend:
        raise UserError(
            f"a Dask worker has Keras on {backend.available()}, and this stage on {request.backend}; start the "
            "worker again, without KERAS_BACKEND."
        )
    from fashionseg.predict.inference import Subset

    return Subset({"images": request.images}, request.places.__getitem__, request.folders, request.params, workers=0)
