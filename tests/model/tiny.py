"""The smallest network that has all its parts: what tests build where the backbone does not matter, and its batches."""

from dataclasses import replace

import numpy as np
import pytest
from keras import Model, layers, ops, optimizers
from keras.backend import standardize_dtype

from fashionseg.model import attribute_heads, backbones, box_head, initializers, sampling
from fashionseg.model.compilation import compile_steps
from fashionseg.model.config import Network
from fashionseg.model.mask_rcnn import Detector, MaskRCNN
from fashionseg.model.rpn import RegionProposals
from networks import USUAL

SMALL = {
    "backbone": "resnet50",
    "weights": "random",
    "frozen_stages": 0,
    "side": 64,
    "classes": 3,
    "fpn_channels": 8,
    "anchor_side": 16,
    "proposals": 16,
    "detections": 20,  # more than MIN_PART: masks come in two parts
    "attributes": "none",
    "attribute_count": 0,
    "precision": "float32",
    "rois": 40,  # more than candidates: the sample does not depend on their order
    "seed": 7,
}
WIDTH, DENSE = 8, 16

_v, _u = (np.mgrid[:56, :56] + 0.5) / 28 - 1
SHAPES = np.stack([_u**2 + _v**2 <= 1, _u + _v < 0, _u + _v > 0])  # by class; IoUs 0.4, 0.4 and 0


def make_batch(seed: int = 0, images: int = 2, instances: int = 4, tallest: int = 25) -> dict[str, np.ndarray]:
    """A disc and two halves of a rectangle, each class of one shape and colour, on noise; the last slot is padding.
    Beside what MaskRCNN knows: proposals near the instances and elsewhere."""
    rng = np.random.default_rng(seed)
    batch = {
        "images": rng.uniform(100, 150, (images, 64, 64, 3)).astype(np.float32),
        "sizes": np.array([[64, 64], [56, 64]], np.int32)[:images],
        "boxes": np.zeros((images, instances, 4), np.float32),
        "classes": np.zeros((images, instances), np.int32),
        "masks": np.zeros((images, instances, 56, 56), np.uint8),
        "attributes": np.zeros((images, instances, 3), np.uint8),
    }
    for image in range(images):
        for slot in range(instances - 1):
            width, height = rng.integers(14, 22), rng.integers(14, tallest + 1)
            left, top = 2 + 20 * slot, rng.integers(2, 54 - height)
            rows, columns = (((np.arange(n) + 0.5) / n * 56).astype(int) for n in (height, width))
            inside = SHAPES[slot][rows][:, columns]
            batch["images"][image, top : top + height, left : left + width][inside] = 30 + 160 * np.eye(3)[slot]
            batch["boxes"][image, slot] = left, top, left + width, top + height
            batch["classes"][image, slot] = slot + 1
            batch["attributes"][image, slot] = slot == 1, slot > 0, 0
            batch["masks"][image, slot] = SHAPES[slot]
    near = np.repeat(batch["boxes"][:, : instances - 1], 2, axis=1) + rng.normal(0, 2, (images, 2 * instances - 2, 4))
    far = rng.uniform(0, 40, (images, 6, 2))
    far = np.concatenate([far, far + rng.uniform(8, 24, far.shape)], axis=-1)
    batch["proposals"] = np.concatenate([near, far], axis=1).astype(np.float32)
    return batch


def backbone(name: str, weights: str, frozen_stages: int, side: int, frozen_norm: bool = True, width=WIDTH) -> Model:
    """In the place of `backbones.build`: a convolution and a norm a stage."""
    features = image = layers.Input((None, None, 3))
    features, maps = layers.Rescaling(1 / 64, -2.0)(features), []
    for stage, (filters, stride) in enumerate([(width, 4), (width, 2), (2 * width, 2), (2 * width, 2)], 1):
        learns = stage > frozen_stages
        he = initializers.VarianceScaling(2.0)
        conv = layers.Conv2D(filters, stride + 1, stride, "same", kernel_initializer=he, trainable=learns)
        norm = layers.BatchNormalization(trainable=learns and not frozen_norm)
        features = layers.ReLU()(norm(conv(features)))
        maps.append(features)
    model = Model(image, maps, name="backbone")
    model.description = name
    return model


def shrink(patch: pytest.MonkeyPatch) -> None:
    """From here on MaskRCNN is tiny."""
    patch.setattr(backbones, "build", backbone)
    patch.setattr(box_head, "DENSE", DENSE)
    patch.setattr(attribute_heads, "DENSE", DENSE)


def spread(network: MaskRCNN) -> None:
    """Makes untrained answers differ: scores far from each other, boxes off their proposals, masks not all 0.5."""
    for layer, factor in (
        (network.rpn.objectness, 30),
        (network.roi_heads.box_head.class_logits, 300),
        (network.roi_heads.box_head.deltas, 300),
    ):
        layer.kernel.assign(layer.kernel * factor)
    network.roi_heads.mask_head.kernel.assign(network.roi_heads.mask_head.kernel * 1000)


def parts(network: MaskRCNN) -> dict:
    """The layers whose weights belong together."""
    heads = network.roi_heads
    named = {"backbone": network.backbone, "fpn": network.fpn, "rpn": network.rpn, "box_head": heads.box_head}
    named |= {"mask_head": heads.mask_head}
    return named | ({"attribute_head": heads.attribute_head} if heads.attribute_head else {})


def network(kind: type[MaskRCNN] = MaskRCNN, **changes) -> MaskRCNN:
    """A network of SMALL with these changes."""
    return kind(Network(**{**USUAL, **SMALL, **changes}))


class Shares(MaskRCNN):
    """Its losses are of one sample, whatever it learns and on every backend: proposals are those of batch["proposals"]
    (B, P, 4), the numbers that decide are NumPy's. Each loss counts as much as batch["shares"] (6,) says."""

    def call(self, batch, training=False):
        proposals = batch["proposals"], ops.ones_like(batch["proposals"][..., 0])
        uniform = np.random.default_rng(0).uniform
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RegionProposals, "propose", lambda *_: proposals)
            patch.setattr(sampling, "uniform", lambda shape, key: ops.convert_to_tensor(uniform(size=shape), "float32"))
            losses = super().call(batch, training)
        return {name: loss * batch["shares"][number] for number, (name, loss) in enumerate(losses.items())}


class Adjustable(Detector):
    """Its score threshold may change without compiling it anew."""

    def __init__(self, network: MaskRCNN):
        super().__init__(network, 0.5, 0.5)
        self.score_threshold = self.add_weight((), "zeros", trainable=False)


class Bench:
    """A network whose step of Adam and whose detection are compiled once, for many tests.

    `first_stages` has the types of pyramid, logits, deltas and anchors each time that Python builds them.
    """

    def __init__(self, network: MaskRCNN, rate: float | optimizers.schedules.LearningRateSchedule = 2e-3):
        self.network, self.first_stages = network, []
        first_stage = network.first_stage

        def counted(*arguments):
            found = first_stage(*arguments)
            self.first_stages.append([{standardize_dtype(level.dtype) for level in levels} for levels in found])
            return found

        network.first_stage = counted
        adam = optimizers.Adam(rate)
        compile_steps(network, optimizer=adam)
        network.optimizer.build(network.trainable_variables)  # else TensorFlow traces the first step twice
        self.detector = Adjustable(network)
        compile_steps(self.detector)
        self.state = [*network.variables, *network.optimizer.variables]
        self.starts = {0: self.values()}  # by trial
        self.restart()
        self.seed = ops.convert_to_numpy(network.seed_generator.state)

    def values(self) -> list[np.ndarray]:
        return [np.array(ops.convert_to_numpy(variable)) for variable in self.state]

    def restart(self, trial: int = 0) -> None:
        """As it began, with other first weights for each trial."""
        if trial not in self.starts:
            config = self.network.config
            other = type(self.network)(replace(config, seed=config.seed + trial))
            weights = [np.array(ops.convert_to_numpy(variable)) for variable in other.variables]
            self.starts[trial] = weights + self.starts[0][len(weights) :]
        self.start = self.starts[trial]
        for variable, value in zip(self.state, self.start, strict=True):
            variable.assign(value)

    def moved(self) -> list:
        """Variables of the network that differ from the start."""
        pairs = zip(self.network.variables, self.start, strict=False)
        return [variable for variable, value in pairs if (ops.convert_to_numpy(variable) != value).any()]

    def step(self, batch: dict[str, np.ndarray], *names: str) -> dict[str, float]:
        """Trains on the losses of these names, or on all, always with the same random numbers; gives the losses from
        before, 0 where they do not count."""
        self.network.reset_metrics()
        self.network.seed_generator.state.assign(self.seed)
        known = [tracker.name for tracker in self.network.trackers]
        shares = np.array([not names or name in names for name in known], np.float32)
        return self.network.train_on_batch({**batch, "shares": shares}, return_dict=True)

    def detect(self, batch: dict[str, np.ndarray], score_threshold: float) -> dict[str, np.ndarray]:
        self.detector.score_threshold.assign(score_threshold)
        return self.detector.predict_on_batch({name: batch[name] for name in ("images", "sizes")})
