"""predict: instances of one subset's images as COCO results at the original size; a killed run goes on."""

import sys
from pathlib import Path

from fashionseg import params
from fashionseg.core import backend, cluster, documents, pictures
from fashionseg.core.stage import running


def main(document: str, originals: str, images: str, models: str, others: str, predictions: str) -> None:
    settings = params.load("images", "predict", "machine")
    backend.choose(settings.machine.backend)
    from fashionseg.predict import inference, on_cluster

    truth = documents.read(document)
    folders = [Path(models), *(Path(others) / name for name in settings.predict.models)]

    def images_for(side: int) -> Path:
        return Path(images) if side <= settings.images.side else pictures.originals(originals)

    what = truth, images_for, folders, settings.predict, predictions
    with cluster.joined(settings.machine.dask):
        if settings.machine.dask is not None:
            found = on_cluster.predict(*what)
        else:
            found = inference.predict(*what, workers=settings.machine.workers)
    print(f"{found} instances on {len(truth['images'])} images: {predictions}")


if __name__ == "__main__":
    with running():
        main(*sys.argv[1:])
