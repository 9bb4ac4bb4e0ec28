"""Values of a file of weights into the layers of a network, each once; a report lists what was loaded."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
from keras import ops

from fashionseg.core.errors import UserError
from fashionseg.model.convs import EPSILON, scale_and_shift
from fashionseg.model.weights.coco_classes import GAP

# The layers that have rows of numbers for each name: of which names, and how many numbers.
BY_NAME = {
    "box_head.class_logits": ("classes", 1),
    "box_head.deltas": ("classes", 4),
    "mask_head.logits": ("classes", 1),
    "attribute_head.logits": ("attributes", 1),
}
# Layers whose shape depends on the data or on the anchor ratios; where the file's differ, they are not loaded.
MAY_DIFFER = ("rpn.objectness", "rpn.deltas", *BY_NAME)
# Tensors that the network does not need: a classifier's last layer, counters of training steps, heads of this project
# that it has not.
COUNTER = "num_batches_tracked"
OPTIONAL = r"attribute_head\..*|box_head_\d\..*"
UNUSED = rf"fc\.(weight|bias)|.*\.{COUNTER}|{OPTIONAL}"
GROUP = r"backbone\.[^_]+|[^.]+(\.[^.]+)?|.*"  # of layers in the summary: backbone.stack2, fpn.lateral, box_head.deltas
SHOWN, NAMES = 3, 12  # unused tensors named in an error, carried names in the summary
ADVICE = "choose the model params that this file was made with"


Names = dict[str, list[str]]  # `classes`, background first, and `attributes`, in the order of their rows


@dataclass
class Report:
    """Which layers of the network were loaded from which tensors of the file, and what is left on either side."""

    path: Path
    source: str
    loaded: dict[str, list[str]] = field(default_factory=dict)  # layer: names of its tensors in the file
    numbers: int = 0  # values loaded
    skipped: dict[str, str] = field(default_factory=dict)  # layer: how its shape differs from the file's
    carried: dict[str, list[str]] = field(default_factory=dict)  # skipped layer: names whose rows were loaded
    fresh: list[str] = field(default_factory=list)  # layers that the file lacks
    unused: list[str] = field(default_factory=list)  # names in the file that the network does not need

    def __str__(self) -> str:
        """One line per group of layers and per group without counterpart."""
        matched = Counter()
        for layer, names in self.loaded.items():
            matched[_group(layer)] += len(names)
        lines = [f"{self.path} ({self.source}): {self.numbers:,} values loaded into {len(self.loaded)} layers"]
        lines += [f"  {group:<24}{count:>4} tensors matched" for group, count in matched.items()]
        for layer, reason in self.skipped.items():
            names = self.carried.get(layer, [])
            more = f", ... ({len(names)} names)" * (len(names) > NAMES)
            but = f" but for {', '.join(names[:NAMES])}{more}" if names else ""
            lines.append(f"  {layer:<24} newly initialised{but}: {reason}")
        fresh = dict.fromkeys(map(_group, self.fresh))
        lines += [f"  {group:<24} newly initialised: not in the file" for group in fresh]
        unused = Counter(COUNTER if name.endswith(COUNTER) else _group(name) for name in self.unused)
        lines += [f"  {name:<24}{count:>4} tensors unused, as allowed" for name, count in unused.items()]
        return "\n".join(lines)


def _group(layer: str) -> str:
    return re.match(GROUP, layer)[0]


class WeightImport:
    """The tensors of a file, each used once, and the layers of the network still to be loaded."""

    def __init__(
        self,
        path: Path,
        source: str,
        tensors: dict[str, np.ndarray],
        *,
        network: keras.Model,
        unused: Sequence[str],
        names: Names,
        names_in_file: Callable[[int], Names],
    ):
        self.tensors = tensors
        self.layers = layers_of(network)
        self.may_be_unused = tuple(unused)
        self.names = names
        self.names_in_file = names_in_file
        self.report = Report(path, source)
        self.taken: list[str] = []

    def take(self, name: str) -> np.ndarray:
        if name not in self.tensors:
            self.fail(f"lacks {name}")
        self.taken.append(name)
        return self.tensors.pop(name).astype("float64")

    def norm(self, parts: list[str], epsilon: float) -> list[np.ndarray]:
        """Gain, offset, mean and variance (C,) of the batch norm of these tensor names, converted to our epsilon."""
        gain, offset, mean, variance = map(self.take, parts)
        return [gain * np.sqrt((variance + EPSILON) / (variance + epsilon)), offset, mean, variance]

    def folded_norm(self, parts: list[str], epsilon: float) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift (C,) that equal the batch norm at inference."""
        return scale_and_shift(*self.norm(parts, epsilon), EPSILON)

    def remaining(self, prefix: str) -> list[str]:
        """The layers of this prefix that are not loaded yet."""
        return [layer for layer in self.layers if layer.startswith(prefix)]

    def load(self, layer: str, *values: np.ndarray) -> None:
        """Assigns values to a layer; the tensors taken since the last call are reported as their source."""
        names, self.taken = self.taken, []
        if layer not in self.layers:
            self.fail(f"holds {names[0]}")
        variables = self.layers.pop(layer)
        kind = re.sub(r"^box_head_\d", "box_head", layer)  # the later heads of a cascade are like the first
        shapes = [(value.shape, tuple(variable.shape)) for variable, value in zip(variables, values, strict=True)]
        difference = next((f"has shape {it}, expected {ours}" for it, ours in shapes if it != ours), None)
        if difference and kind not in MAY_DIFFER:
            self.fail(f"does not fit {layer}: {names[0]} {difference}")
        rows = self._rows(kind, variables[-1].shape[0], values[-1].size)
        if rows:
            self._carry(layer, self.names[BY_NAME[kind][0]], rows, variables, values)
        if difference or rows is not None:
            self.report.skipped[layer] = f"{names[0]} {difference or 'has rows of other names'}"
            return
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value.astype("float32"))
            self.report.numbers += value.size
        self.report.loaded[layer] = names

    def _rows(self, kind: str, size: int, size_in_file: int) -> dict[int, int] | None:
        """Of a layer with rows by name and a bias of this size: the file's row for each of ours that it has. None where
        the network's or the file's has no such rows, or where both have the same."""
        if kind not in BY_NAME:
            return None
        of, width = BY_NAME[kind]
        ours, theirs = self.names[of], self.names_in_file(size_in_file // width)[of]
        if ours == theirs or (size, size_in_file) != (width * len(ours), width * len(theirs)):
            return None
        row_of = {name: row for row, name in enumerate(theirs) if name != GAP}
        return {
            row: row_of[part]
            for row, name in enumerate(ours)
            for part in (*name.split(", "), name)  # the last that is known
            if part in row_of
        }

    def _carry(
        self,
        layer: str,
        names: list[str],
        rows: dict[int, int],
        variables: list[keras.Variable],
        values: tuple[np.ndarray, ...],
    ) -> None:
        """Assigns rows of the file. In their number alone the layers differ: those before them fit."""
        transposed = layer != "mask_head.logits"  # kernels of dense layers, whose rows are columns
        ours, theirs = np.array([*rows.items()]).T
        for variable, value in zip(variables, values, strict=True):
            before = ops.convert_to_numpy(variable)
            old, new = (np.array(array.T if transposed else array, order="C") for array in (value, before))
            by_name = new.reshape(len(names), -1)
            by_name[ours] = old.reshape(-1, by_name.shape[1])[theirs]
            variable.assign(new.T if transposed else new)
            self.report.numbers += by_name[ours].size
        self.report.carried[layer] = [names[row] for row in rows]

    def finish(self) -> Report:
        for name in self.tensors:
            if re.fullmatch(UNUSED, name) or name.startswith(self.may_be_unused):
                self.report.unused.append(name)
        foreign = [name for name in self.tensors if name not in self.report.unused]
        if foreign:
            more = ", ..." * (len(foreign) > SHOWN)
            self.fail(
                f"holds {len(foreign)} tensors that the network lacks ({', '.join(foreign[:SHOWN])}{more})",
                f"{ADVICE}, or list prefixes of these names in model.weights_unused",
            )
        self.report.fresh = list(self.layers)
        return self.report

    def fail(self, what: str, advice: str = ADVICE) -> None:
        raise UserError(f"{self.report.path} {what}; {advice}.")


def layers_of(network: keras.Model) -> dict[str, list[keras.Variable]]:
    """The variables of every layer with weights, by the layer's name."""
    fpn, rpn, heads = network.fpn, network.rpn, network.roi_heads
    mask_head, attribute_head = heads.mask_head, heads.attribute_head
    named = {
        **{f"backbone.{layer.name}": layer for layer in network.backbone.layers[-1].layers},
        **{f"fpn.lateral.{level}": layer for level, layer in enumerate(fpn.lateral)},
        **{f"fpn.output.{level}": layer for level, layer in enumerate(fpn.output_convs)},
        **{f"fpn.norm.{index}": layer for index, layer in enumerate(fpn.lateral_norms + fpn.output_norms)},
        **{f"rpn.conv.{index}": layer for index, layer in enumerate([rpn.conv, *rpn.more_convs])},
        "rpn.objectness": rpn.objectness,
        "rpn.deltas": rpn.deltas,
        **{f"mask_head.conv.{index}": layer for index, layer in enumerate(mask_head.convs)},
        **{f"mask_head.norm.{index}": layer for index, layer in enumerate(mask_head.norms)},
        "mask_head.upsample": mask_head.upsample,
    }
    for stage, head in enumerate(heads.box_heads, 1):
        name = "box_head" if stage == 1 else f"box_head_{stage}"
        named |= {f"{name}.conv.{index}": layer for index, layer in enumerate(head.convs)}
        named |= {f"{name}.norm.{index}": layer for index, layer in enumerate(head.norms)}
        named |= {f"{name}.dense.{index}": layer for index, layer in enumerate(head.dense)}
        named |= {f"{name}.class_logits": head.class_logits, f"{name}.deltas": head.deltas}
    if attribute_head:
        named |= {f"attribute_head.{name}": layer for name, layer in attribute_head.parts.items()}
    layers = {name: layer.variables for name, layer in named.items() if layer.variables}
    layers["mask_head.logits"] = [mask_head.kernel, mask_head.bias]
    return layers
