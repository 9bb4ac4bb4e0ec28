"""The trained network as a TensorFlow SavedModel, which runs without this package: `make export`."""

import os
import sys
from pathlib import Path

from fashionseg import io, params
from fashionseg.errors import UserError, reported


def export(models: str | Path, folder: str | Path, least_score: float, nms_iou: float) -> None:
    """Writes `folder`: its endpoint `serve` takes images (B, S, S, 3) float32 RGB 0..255, padded right and bottom, and
    sizes (B, 2) int32, and gives what `MaskRCNN.detect` gives, for any B. Raises UserError on another backend than
    TensorFlow."""
    import keras

    from fashionseg import inference
    from fashionseg.model.mask_rcnn import Detector

    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"a SavedModel is TensorFlow's, but Keras runs on {keras.backend.backend()}; "
            "export with KERAS_BACKEND=tensorflow, which reads the same weights."
        )
    network, _ = inference.load(Path(models))
    detector = Detector(network, least_score, nms_iou)
    images = keras.InputSpec(dtype="float32", shape=(None, network.side, network.side, 3))
    sizes = keras.InputSpec(dtype="int32", shape=(None, 2))
    with io.replacing(folder) as beside:
        detector.export(beside, "tf_saved_model", input_signature=[{"images": images, "sizes": sizes}], verbose=False)


def main(models: str, folder: str) -> None:
    settings = params.load("predict", "machine")
    os.environ.setdefault("KERAS_BACKEND", settings.machine.backend)  # Keras reads it when it is imported
    export(models, folder, settings.predict.score, settings.predict.nms_iou)
    print(
        f"SavedModel: {folder}; saved = tf.saved_model.load('{folder}'); saved.serve({{'images': ..., 'sizes': ...}})"
    )


if __name__ == "__main__":
    with reported():
        main(*sys.argv[1:])
