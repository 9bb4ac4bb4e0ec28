"""What a training step of Mask R-CNN R50-FPN costs on a GPU, as XLA plans it: nothing runs, and no GPU is needed.

    python benchmarks/step.py [--side 1024] [--width 704] [--batch 8] [--precision mixed_bfloat16] [--largest 20]
    python benchmarks/step.py --preset competition_r50      # the network and batches of that preset, in squares

With the plugin of `jax[cuda12]` installed the step is compiled for an H100, else for the processor, where features of
16 bits are computed in 32. Printed are the FLOPs as XLA counts them, the bytes that its kernels read and write, the
most temporary memory at a time, and that of weights, optimizer and batch; then the --largest kernels. A loop counts as
often as it runs where XLA knows that, else once; a gather or scatter for the rows that it touches; a sort for all its
passes. Branches count as if all were taken, and by themselves: each of the eight parts of the mask slots has one, which
is taken where an image of the batch has an instance there.
"""

import argparse
import os
import re
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import reference
from fashionseg.core.backend import XLA_FLAGS

os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', XLA_FLAGS)} --xla_gpu_autotune_level=0"  # it asks for the GPU

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  core_count: 132 fpus_per_core: 128 registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84942979072
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
"""
ATTRIBUTES = 294
SIZES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s64": 8, "u64": 8, "f64": 8}  # else 4
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
TABLES = {"gather", "dynamic-slice", "slice"}  # read a part of their first operand
BRANCH = " in a branch"
ALIASES = {"bitcast", "reshape", "convert", "concatenate"}
UPDATES = {"scatter": 2, "dynamic-update-slice": 1}  # write a part of it: which operand holds the new values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (
        ("side", 1024),
        ("batch", 8),
        ("proposals", 1000),
        ("rois", 512),
        ("instances", 80),
        ("largest", 20),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--width", type=int, help="of the images, which are --side tall; square if left out")
    parser.add_argument("--precision", default="mixed_bfloat16", choices=["float32", "mixed_bfloat16", "mixed_float16"])
    parser.add_argument("--images", default="float32", choices=["float32", "uint8"], help="what a batch holds")
    parser.add_argument("--hlo", help="file for the compiled step as text")
    parser.add_argument(
        "--preset", help="a name of presets/, instead of side, batch, proposals, rois, instances, precision"
    )
    options = parser.parse_args()
    settings = preset(options) if options.preset else None
    options.width = options.width or options.side
    flops, compiled, target = step(options, settings)
    text = compiled.as_text()
    if options.hlo:
        with open(options.hlo, "w") as file:
            file.write(text)
    kernels = traffic(text)
    memory = compiled.memory_analysis()
    peak, held = memory.temp_size_in_bytes, memory.argument_size_in_bytes
    shape = f"{options.batch} x {options.side} x {options.width}"
    print(f"{shape} px, {options.precision}, {options.images} images, for {target}:")
    branches = sum(size for kernel, size in kernels.items() if kernel.endswith(BRANCH))
    moved = f"{sum(kernels.values()) / 1e9:.1f} GB moved ({branches / 1e9:.1f}{BRANCH})"
    print(f"{flops / 1e12:.2f} TFLOP, {moved}, {peak / 1e9:.2f} GB temporary, {held / 1e9:.2f} GB held")
    for kernel, size in kernels.most_common(options.largest):
        print(f"{size / 1e9:8.2f} GB  {kernel}")


def preset(options: argparse.Namespace):
    """The params of a preset; its sizes go into `options`, and its files of weights are not needed."""
    from fashionseg import params

    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(root / "params.yaml", path := Path(folder, "params.yaml"))
        params.apply(root / "presets" / f"{options.preset}.yaml", path)
        settings = params.load("images", "model", "train", path=path)
    settings.model = replace(
        settings.model,
        backbone=re.sub(r"resnet_(\d+)_imagenet", r"resnet\1", settings.model.backbone),
        weights="random",
    )
    options.side, options.precision, options.images = settings.images.side, settings.model.precision, "uint8"
    options.batch, options.instances = settings.train.batch_size, settings.train.instances
    return settings


def network_of(options: argparse.Namespace, settings):
    from fashionseg.model.config import Network
    from fashionseg.model.mask_rcnn import MaskRCNN

    if not settings:
        return reference.r50_fpn(options, options.precision)
    attributes = 0 if settings.model.attributes == "none" else ATTRIBUTES
    sizes = {"side": options.side, "classes": reference.CLASSES, "attribute_count": attributes}
    return MaskRCNN(Network(**vars(settings.model), **sizes, rois=settings.train.rois, seed=0))


def step(options: argparse.Namespace, settings):
    """FLOPs of the step, the step compiled, and for what."""
    import jax
    import keras

    from fashionseg.model import device

    device.accelerated = lambda: True  # so that the graph is a GPU's
    network = network_of(options, settings)
    network.compile(keras.optimizers.SGD(1e-4, 0.9), jit_compile=True)
    network.optimizer.build(network.trainable_variables)
    images = options.batch
    shapes = {
        "images": ((images, options.side, options.width, 3), options.images),
        "sizes": ((images, 2), "int32"),
        "boxes": ((images, options.instances, 4), "float32"),
        "classes": ((images, options.instances), "int32"),
        "masks": ((images, options.instances, 56, 56), "uint8"),
    }
    if network.config.attribute_count:
        shapes["attributes"] = ((images, options.instances, network.config.attribute_count), "uint8")
    batch = {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}
    groups = (
        network.trainable_variables,
        network.non_trainable_variables,
        network.optimizer.variables,
        network.metrics_variables,
    )
    state = tuple([variable.value for variable in group] for group in groups)
    chip, target = gpu() or (jax.devices()[0], "this processor")
    sharding = jax.sharding.SingleDeviceSharding(chip)
    arguments = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), (state, (batch,)))
    train_step = jax.jit(network.train_step, donate_argnums=0)
    flops = train_step.lower(state, (batch,)).cost_analysis()[
        "flops"
    ]  # for the processor: a GPU's compiler counts none
    return flops, train_step.lower(*arguments).compile(), target


def gpu():
    """An H100 that need not be there, and its name; None without the plugin."""
    from jax.experimental import topologies

    try:
        topology = topologies.get_topology_desc("h100", "cuda", target_config=H100, topology="1x1x1")
    except Exception as error:  # whatever a plugin that is not there makes of it
        print(f"no GPU's compiler: {error}")
        return None
    return topology.devices[0], "an H100"


@dataclass
class Instruction:
    name: str
    shape: str
    opcode: str
    operands: list[str]
    line: str

    @property
    def bytes(self) -> int:
        return size_of(self.shape)


@dataclass
class Computation:
    instructions: dict[str, Instruction] = field(default_factory=dict)
    parameters: dict[int, str] = field(default_factory=dict)
    root: str = ""


def size_of(shape: str) -> int:
    """Bytes of an array's or a tuple's shape, as f32[2,3]{1,0}."""
    total = 0
    for dtype, lengths in re.findall(r"([a-z]+\d*)\w*\[([\d,]*)\]", shape):
        count = 1
        for length in filter(None, lengths.split(",")):
            count *= int(length)
        total += count * SIZES.get(dtype, 4)
    return total


def size_of_one(instruction: Instruction) -> int:
    """Bytes of a number of an array."""
    return size_of(f"{instruction.shape.partition('[')[0]}[]")


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """The computations of a compiled module by name, and the name of the one that it begins with."""
    computations, entry, current = {}, "", None
    for line in text.splitlines():
        if match := re.match(r"(ENTRY )?%?([\w.-]+) .*\{$", line):
            current = computations[match[2]] = Computation()
            entry = match[2] if match[1] else entry
        elif match := re.match(r"\s+(ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*?)\)", line):
            root, name, shape, opcode, inside = match.groups()
            current.instructions[name] = Instruction(name, shape, opcode, re.findall(r"%([\w.-]+)", inside), line)
            if opcode == "parameter":
                current.parameters[int(inside)] = name
            current.root = name if root else current.root
    return computations, entry


def traffic(text: str) -> Counter:
    """Bytes read and written by each kernel of a compiled module, named by its opcode and what it is of."""
    computations, entry = parse(text)
    kernels = Counter()

    def called(instruction, *names):
        found = [re.search(rf"{name}=%?([\w.-]+)", instruction.line) for name in names]
        return [computations[match[1]] for match in found if match]

    def walk(computation, times, where=""):
        for instruction in computation.instructions.values():
            if instruction.opcode in FREE or instruction.opcode.endswith("-done"):
                continue
            if instruction.opcode == "while":
                known = re.search(r'known_trip_count":\{"n":"(\d+)"', instruction.line)
                for body in called(instruction, "body"):
                    walk(body, times * int(known[1] if known else 1), where)
            elif instruction.opcode == "conditional":
                for body in called(instruction, "true_computation", "false_computation"):
                    walk(body, times, BRANCH)
            elif instruction.opcode in ("call", "async-start"):
                for body in called(instruction, "to_apply", "calls"):
                    walk(body, times, where)
            else:
                operands = [computation.instructions[name] for name in instruction.operands]
                inner = called(instruction, "calls") if instruction.opcode == "fusion" else []
                cost = fused(inner[0], operands) if inner else plain(instruction, operands)
                origin = re.search(r'op_name="([^"]*)"', instruction.line)
                about = origin[1].removeprefix("jit(train_step)/") if origin else instruction.name
                kernels[f"{instruction.opcode} {about}{where}"] += cost * times

    walk(computations[entry], 1)
    return kernels


def plain(instruction: Instruction, operands: list[Instruction]) -> int:
    if instruction.opcode == "sort":
        return 2 * instruction.bytes * passes(instruction)
    if instruction.opcode in TABLES:
        return 2 * instruction.bytes + sum(operand.bytes for operand in operands[1:])
    if instruction.opcode in UPDATES:
        return updated(instruction, operands)
    return instruction.bytes + sum(operand.bytes for operand in operands)


def updated(instruction: Instruction, operands: list[Instruction]) -> int:
    """The new values are read, and the rows that they are for are read and written."""
    values = operands[UPDATES[instruction.opcode]].bytes
    return 2 * values + sum(operand.bytes for operand in operands[1:])


def passes(sort: Instruction) -> int:
    """How often XLA's bitonic sort on a GPU goes over all numbers: blocks of 2048 are sorted in shared memory."""
    lengths = re.search(r"\[([\d,]+)\]", sort.shape)[1].split(",")
    axis = int(re.search(r"dimensions=\{(\d+)\}", sort.line)[1])
    stages = (int(lengths[axis]) - 1).bit_length()
    return 1 + sum(stage - 10 for stage in range(12, stages + 1))


def fused(computation: Computation, operands: list[Instruction]) -> int:
    """Bytes of a fusion: of each operand what its users within take, and the result."""
    instructions, total, in_place = computation.instructions, 0, set()
    if instructions[computation.root].opcode == "sort":
        return plain(instructions[computation.root], operands)
    results = [instructions[computation.root]]
    while results:
        output = result = results.pop()
        while result.opcode in ("bitcast", "convert", "copy") and result.operands:
            result = instructions[result.operands[0]]
        inside = [instructions[name] for name in result.operands]
        if result.opcode == "tuple":
            results += inside
        elif result.opcode in UPDATES:
            total += 2 * inside[UPDATES[result.opcode]].bytes
            in_place.add(result.operands[0])
        else:
            total += output.bytes
    taken = {}  # by user, as what several operands are put together to is taken from once
    for place, name in computation.parameters.items():
        users, names = [], [name]
        for alias in names:  # the list grows by the names of the same numbers in other shapes, types and arrays
            found = [user for user in instructions.values() if alias in user.operands]
            names += [user.name for user in found if user.opcode in ALIASES]
            users += [user for user in found if user.opcode not in ALIASES]
        if users and all(user.opcode in TABLES and user.operands[0] in names for user in users):
            taken |= {user.name: user.bytes // size_of_one(user) * size_of_one(instructions[name]) for user in users}
        elif name not in in_place:
            total += operands[place].bytes
    return total + sum(taken.values())


if __name__ == "__main__":
    main()
