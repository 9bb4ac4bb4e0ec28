"""The trained network as a TensorFlow SavedModel or as ONNX, which run without this package: `make export`."""

import warnings
from dataclasses import replace
from pathlib import Path

import keras

from fashionseg.core import files
from fashionseg.core.errors import UserError
from fashionseg.model import device
from fashionseg.model.mask_rcnn import Detector, MaskRCNN
from fashionseg.predict import inference
from fashionseg.predict.config import Predict


def export(models: str | Path, path: str | Path, params: Predict) -> None:
    """Writes ONNX where `path` ends in .onnx, else a SavedModel into a folder of that name.

    Its endpoint `serve`, in ONNX the graph, takes images (B, S, S, 3) float32 RGB 0..255, padded at right and bottom,
    and sizes (B, 2) int32 (height, width), for any B, and returns what `MaskRCNN.detect` returns, by score, nms_iou and
    mask_scores of params. ONNX computes in float32 whatever the network was trained in. Raises UserError on another
    backend than TensorFlow, for ONNX without the packages that write it, and for another suffix.
    """
    path = Path(path)
    if path.suffix not in ("", ".onnx"):
        raise UserError(f"{path} should end in .onnx or, for a SavedModel, have no suffix.")
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"the network is exported by TensorFlow, but Keras runs on {keras.backend.backend()}; "
            "export with KERAS_BACKEND=tensorflow, which reads the same weights, in a .venv made without GPU=1."
        )
    if not path.suffix:
        files.check_replaceable(path, "saved_model.pb")
    write = _onnx if path.suffix else _saved_model
    network, _ = inference.load(Path(models))
    with files.replacing(path) as beside:
        write(network, beside, params)


def _signature(side: int) -> list[dict[str, keras.InputSpec]]:
    images = keras.InputSpec(dtype="float32", shape=(None, side, side, 3), name="images")
    return [{"images": images, "sizes": keras.InputSpec(dtype="int32", shape=(None, 2), name="sizes")}]


def _saved_model(network: MaskRCNN, path: Path, params: Predict) -> None:
    detector = Detector(network, params.score, params.nms_iou, params.mask_scores)
    detector.export(path, "tf_saved_model", input_signature=_signature(network.config.side), verbose=False)


def _onnx(network: MaskRCNN, path: Path, params: Predict) -> None:
    try:
        import onnx
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"ONNX needs packages that are not installed ({error}); "
            "`.venv/bin/uv pip install --python .venv/bin/python tf2onnx onnxruntime` brings them."
        ) from None
    in_float32 = MaskRCNN(replace(network.config, precision="float32"))  # Keras exports no other
    in_float32.set_weights(network.get_weights())
    # tf2onnx loses the shapes of tensors within a branch.
    with device.without_branches(), warnings.catch_warnings(action="ignore", category=FutureWarning):
        detector = Detector(in_float32, params.score, params.nms_iou, params.mask_scores)
        detector.export(path, "onnx", input_signature=_signature(network.config.side), verbose=False)
    onnx.checker.check_model(path, full_check=True)  # tf2onnx only logs what it cannot convert
