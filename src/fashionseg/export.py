"""The trained network as a TensorFlow SavedModel, which runs without this package: `make export`."""

import sys
from pathlib import Path

import keras

from fashionseg import inference, io, params
from fashionseg.errors import reported
from fashionseg.model.mask_rcnn import Detector


def export(models: str | Path, folder: str | Path, least_score: float, nms_iou: float) -> None:
    """Writes `folder`: its endpoint `serve` takes images (B, S, S, 3) float32 RGB 0..255, padded right and bottom, and
    sizes (B, 2) int32, and gives what `MaskRCNN.detect` gives, for any B."""
    network, _ = inference.load(Path(models))
    detector = Detector(network, least_score, nms_iou)
    images = keras.InputSpec(dtype="float32", shape=(None, network.side, network.side, 3))
    sizes = keras.InputSpec(dtype="int32", shape=(None, 2))
    with io.replacing(folder) as beside:
        detector.export(beside, "tf_saved_model", input_signature=[{"images": images, "sizes": sizes}], verbose=False)


def main(models: str, folder: str) -> None:
    settings = params.load("predict").predict
    export(models, folder, settings.score, settings.nms_iou)
    print(
        f"SavedModel: {folder}; saved = tf.saved_model.load('{folder}'); saved.serve({{'images': ..., 'sizes': ...}})"
    )


if __name__ == "__main__":
    with reported():
        main(*sys.argv[1:])
