"""The trained network as a TensorFlow SavedModel, which runs without this package: `make export`."""

from pathlib import Path

import keras

from fashionseg.core import files
from fashionseg.core.errors import UserError
from fashionseg.model.mask_rcnn import Detector
from fashionseg.predict import inference


def export(models: str | Path, folder: str | Path, min_score: float, nms_iou: float) -> None:
    """Writes a SavedModel into `folder`. Raises UserError on another backend than TensorFlow.

    Its endpoint `serve` takes images (B, S, S, 3) float32 RGB 0..255, padded at right and bottom, and sizes (B, 2)
    int32 (height, width), for any B, and returns what `MaskRCNN.detect` returns.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"a SavedModel is TensorFlow's, but Keras runs on {keras.backend.backend()}; "
            "export with KERAS_BACKEND=tensorflow, which reads the same weights."
        )
    network, _ = inference.load(Path(models))
    detector = Detector(network, min_score, nms_iou)
    images = keras.InputSpec(dtype="float32", shape=(None, network.config.side, network.config.side, 3))
    sizes = keras.InputSpec(dtype="int32", shape=(None, 2))
    with files.replacing(folder) as beside:
        detector.export(beside, "tf_saved_model", input_signature=[{"images": images, "sizes": sizes}], verbose=False)
