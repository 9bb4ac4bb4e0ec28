"""Which candidates are drawn in training: numbers from whole-number arithmetic, the same bits on every backend."""

from keras import KerasTensor, ops

# The last steps of MurmurHash3 (Appleby 2011), which spread a change of any bit over all 32.
SHIFTS, FACTORS = (16, 13, 16), (0x85EBCA6B, 0xC2B2AE35)
ODD = 0x9E3779B9  # 2^32 / golden ratio: keeps a seed of 0 from staying 0
KEPT = 24  # bits, all that a float32 below 1 holds


def uniform(shape: tuple[KerasTensor | int, int], key: KerasTensor) -> KerasTensor:
    """Numbers in [0, 1), float32, of a key (2,) of whole numbers such as `keras.random.SeedGenerator.next` gives.

    A hash of the key and of the place in the array, as counter-based generators are (Salmon et al. 2011).
    """
    key = ops.cast(key, "uint32")
    first = _spread(key[0] + _whole(ODD))
    places = ops.cast(ops.arange(shape[0] * shape[1], dtype="int32"), "uint32")
    bits = _spread(ops.bitwise_xor(_spread(ops.bitwise_xor(places, first)), _spread(first + key[1] + _whole(ODD))))
    numbers = ops.cast(ops.right_shift(bits, _whole(32 - KEPT)), "float32") * 2.0**-KEPT
    return ops.reshape(numbers, shape)


def _spread(bits):
    for shift, factor in zip(SHIFTS, (*FACTORS, 1), strict=True):
        bits = ops.bitwise_xor(bits, ops.right_shift(bits, _whole(shift))) * _whole(factor)
    return bits


def _whole(number):
    return ops.convert_to_tensor(number, "uint32")
