"""Losses of Mask R-CNN as torchvision defines them. Tensors in, one scalar out; computed in float32."""

from keras import KerasTensor, ops

BETA = 1 / 9  # where smooth L1 turns from quadratic to linear, as in Detectron and torchvision
ALPHA, GAMMA = 0.25, 2.0  # of the focal loss (Lin et al. 2017), in the paper and at the 2020 winner's
ATTRIBUTES_WEIGHT = 50.0  # the 2020 winner's; the mean is over all attributes, nearly all of them absent


def objectness(logits: KerasTensor, foreground: KerasTensor, used: KerasTensor) -> KerasTensor:
    """Mean binary cross-entropy over the sampled anchors: logits (B, K); foreground and used (sampled), (B, K) bool."""
    return _mean(_binary_cross_entropy(logits, ops.cast(foreground, "float32")), used, used)


def box_reg(deltas: KerasTensor, target: KerasTensor, foreground: KerasTensor, used: KerasTensor) -> KerasTensor:
    """Smooth L1 summed over the foreground boxes, divided by the number of sampled ones.

    deltas, target (B, K, 4); foreground, used (B, K) bool. For the RPN (rpn_box_reg) and the box head (box_reg).
    """
    distance = ops.abs(ops.cast(deltas, "float32") - target)
    smooth = ops.where(distance < BETA, 0.5 * distance**2 / BETA, distance - 0.5 * BETA)
    return _mean(ops.sum(smooth, axis=-1), foreground, used)


def classifier(logits: KerasTensor, classes: KerasTensor, used: KerasTensor) -> KerasTensor:
    """Mean cross-entropy over the sampled RoIs.

    logits (B, K, C + 1); classes (B, K) int32, 0 = background; used (B, K) bool.
    """
    log_probabilities = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    log_likelihood = ops.take_along_axis(log_probabilities, classes[..., None], axis=-1)[..., 0]  # (B, K)
    return _mean(-log_likelihood, used, used)


def mask(logits: KerasTensor, target: KerasTensor, foreground: KerasTensor) -> KerasTensor:
    """Mean binary cross-entropy over the foreground's pixels: logits, target (B, K, S, S); foreground (B, K) bool."""
    loss = ops.mean(_binary_cross_entropy(logits, target), axis=(2, 3))  # (B, K)
    return _mean(loss, foreground, foreground)


def attributes(logits: KerasTensor, target: KerasTensor, foreground: KerasTensor) -> KerasTensor:
    """Focal loss, mean over the foreground's attributes, times ATTRIBUTES_WEIGHT.

    logits, target (B, K, A), target 0 or 1; foreground (B, K) bool.
    """
    target = ops.cast(target, "float32")
    # The paper's 1 - p_t: 1 - p where the attribute is present, p where it is absent.
    error = ops.sigmoid(ops.cast(logits, "float32") * (1.0 - 2.0 * target))
    balance = ALPHA * target + (1.0 - ALPHA) * (1.0 - target)
    loss = ops.mean(balance * error**GAMMA * _binary_cross_entropy(logits, target), axis=-1)  # (B, K)
    return ATTRIBUTES_WEIGHT * _mean(loss, foreground, foreground)


def _binary_cross_entropy(logits, target):
    logits = ops.cast(logits, "float32")
    return ops.softplus(logits) - logits * target  # no abs or relu, which have no gradient at a logit of 0


def _mean(values, where, counted):
    """The sum of values (B, K) over `where`, divided by how many are `counted`."""
    count = ops.sum(ops.cast(counted, "float32"))
    return ops.sum(ops.where(where, values, 0.0)) / ops.maximum(count, 1.0)
