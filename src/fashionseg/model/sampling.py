"""Random numbers for sampling in training, by integer arithmetic: the same bits on every backend."""

from keras import KerasTensor, ops

# The finalizer of MurmurHash3 (Appleby 2011), which spreads a change of any bit over all 32.
SHIFTS, FACTORS = (16, 13, 16), (0x85EBCA6B, 0xC2B2AE35)
ODD = 0x9E3779B9  # 2^32 / golden ratio: keeps a seed of 0 from staying 0
KEPT = 24  # bits: as many as a float32 holds


def uniform(shape: tuple[KerasTensor | int, int], key: KerasTensor) -> KerasTensor:
    """Random float32 in [0, 1) from an integer key (2,), such as `keras.random.SeedGenerator.next` returns.

    A hash of key and index, as in counter-based generators (Salmon et al. 2011).
    """
    key = ops.cast(key, "uint32")
    first = _hash(key[0] + _uint32(ODD))
    indices = ops.cast(ops.arange(shape[0] * shape[1], dtype="int32"), "uint32")
    bits = _hash(ops.bitwise_xor(_hash(ops.bitwise_xor(indices, first)), _hash(first + key[1] + _uint32(ODD))))
    numbers = ops.cast(ops.right_shift(bits, _uint32(32 - KEPT)), "float32") * 2.0**-KEPT
    return ops.reshape(numbers, shape)


def _hash(bits):
    for shift, factor in zip(SHIFTS, (*FACTORS, 1), strict=True):
        bits = ops.bitwise_xor(bits, ops.right_shift(bits, _uint32(shift))) * _uint32(factor)
    return bits


def _uint32(number):
    return ops.convert_to_tensor(number, "uint32")
