"""The steps of a network on one picture, as pictures: `make inspect IMAGE=photo.jpg`."""

import os
import sys
from pathlib import Path

import cv2

from fashionseg import draw, io, params
from fashionseg.errors import UserError, reported


def main(models: str, image: str, folder: str) -> None:
    os.environ.setdefault("KERAS_BACKEND", params.load("machine").machine.backend)
    from fashionseg import anatomy, inference

    network, _ = inference.load(Path(models))
    names = [category["name"] for category in io.read_json(Path(models) / "mask_rcnn.json")["categories"]]
    bgr = cv2.imread(image, cv2.IMREAD_COLOR)
    if bgr is None:
        raise UserError(f"{image} is missing or no picture; name one, as in make inspect IMAGE=photo.jpg.")
    pictures = anatomy.steps(network, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), names)
    with io.replacing(folder) as beside:
        beside.mkdir(parents=True)
        for number, (name, picture) in enumerate(pictures.items(), 1):
            file = beside / f"{number:02}_{name.partition(',')[0].replace(' ', '_')}.jpg"
            cv2.imwrite(str(file), draw.titled(picture, name)[..., ::-1])
    print(f"{len(pictures)} steps: {folder}")


if __name__ == "__main__":
    with reported():
        main(*sys.argv[1:])
