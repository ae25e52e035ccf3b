"""Compiles every Triton kernel for GPUs that are not here, and reads from the result what they would do with it.

    python -m hybridlab.measure.aot --targets sm_90 gfx942

Registers, bytes spilled from them, shared memory, and how many instructions there are, of which how many for matrix units:
enough to see that a kernel fits and is what it was meant to be, not how fast it is. What gets compiled is what a launch
would ask for: the kernel files' own `forward` and `backward` run on tensors without data, and every launch is recorded
instead.

Needs a process without TRITON_INTERPRET (an interpreted kernel cannot be compiled), and the disassembler that triton's
wheels bring along.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from hybridlab.measure.tables import Table
from hybridlab.ops.kernel_op import load_kernels

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# Window, sinks, scale and soft cap of attention: every branch is compiled.
SIGHT = torch.tensor([2048, 4, 0.125, 50], dtype=torch.float64)

# Of each op: the axes of its inputs (bools end in "?", complex numbers in "~"), those of its state, which may be several
# tensors (float32, or in the inputs' dtype where they end in "="; with "!" the forward returns it for the backward, and
# nobody gives it), those of its output.
OPS: dict[str, tuple[tuple[str | Tensor, ...], str, str]] = {
    "attention": (("BTHK", "BLGK", "BLGV", SIGHT), "BHT!", "BTHV"),
    "delta_rule": (("BTHK", "BTHK", "BTHV", "BTH"), "BHKV", "BTHV"),
    "gated_delta_rule": (("BTHK", "BTHK", "BTHV", "BTH", "BTH"), "BHKV", "BTHV"),
    "linear_recurrence": (("BTD", "BTD"), "BD", "BTD"),
    "rg_lru": (("BTD", "BTD", "BTD", "D", "BT?"), "BD", "BTD"),
    "long_conv": (("BTD", "DL"), "BLD=", "BTD"),
    "modal_conv": (("BTD", "DN~", "DN~"), "BDN~", "BTD"),
    "retention": (("BTHK", "BTHK", "BTHV", "H"), "BHKV", "BTHV"),
    "selective_scan": (("BTE", "BTE", "EN", "BTN", "BTN", "E"), "BEN", "BTE"),
    "short_conv": (("BTD", "DW", "D"), "BSD=", "BTD"),
    "ssd": (("BTHP", "BTH", "H", "BTGM", "BTGM", "H"), "BHPM", "BTHP"),
    "taylor_attention": (("BTHY", "BTHY", "BTHV", ""), "BHFV BHF BTH!", "BTHV"),
    "wkv4": (("BTC", "BTC", "C", "C"), "BC3", "BTC"),
    "wkv6": (("BTHK", "BTHK", "BTHV", "BTHK", "HK"), "BHKV", "BTHV"),
    "wkv7": (("BTHK", "BTHK", "BTHV", "BTHK", "BTHK", "BTHK"), "BHKV", "BTHV"),
}
# A model of 3 billion parameters at work; M is the state size of Mamba-2, whose letter is N as well.
SIZES = {"B": 8, "T": 4096, "H": 32, "K": 64, "V": 64, "C": 2048, "D": 2048, "E": 4096, "N": 16, "3": 3, "W": 4, "S": 3}
SIZES |= {"P": 64, "G": 1, "M": 128, "L": 4096}
# Keys of Taylor attention, and their features.
SIZES |= {"Y": 16, "F": 273}

KINDS = {"?": torch.bool, "~": torch.complex64}
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.bool: "*i1"}
SASS_LINE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", re.MULTILINE)
SASS_MATRIX = re.compile(r"^(HMMA|IMMA|DMMA|HGMMA|QGMMA|UTC\w*MMA)")


class Launch(NamedTuple):
    """One kernel with the arguments of one call. `phase` is forward, backward or decode."""

    op: str
    phase: str
    dtype: str
    kernel: Any
    arguments: dict[str, Any]
    options: dict[str, Any]


class Record(NamedTuple):
    """What came out of the compiler: per thread `registers` and `spilled` bytes, per block `shared` bytes."""

    target: str
    op: str
    phase: str
    kernel: str
    dtype: str
    registers: int
    spilled: int
    shared: int
    matrix: int
    instructions: int
    seconds: float


def launches(op: str, dtype: str, target: str) -> list[Launch]:
    """Every kernel that a long forward and backward and a decode step of an op would launch, each variant once."""
    module = load_kernels(f"{op}_triton")
    found: dict[Any, Launch] = {}
    hip = "any" if TARGETS[target].backend == "hip" else None
    for phase in ("forward", "backward", "decode"):

        def keep(kernel: Any, *values: Any, grid: Any, warmup: bool, phase: str = phase, **options: Any) -> None:
            arguments = dict(zip(kernel.arg_names, values, strict=True))
            launch = Launch(op, phase, dtype, kernel, arguments, options)
            found.setdefault((kernel, str(_signature(launch)), str(options)), launch)

        with patch.object(triton.JITFunction, "run", keep), patch.object(torch.version, "hip", hip):
            _call(module, phase, op, DTYPES[dtype])
    return list(found.values())


def _call(module: ModuleType, phase: str, op: str, dtype: torch.dtype) -> None:
    sizes = SIZES | {"T": 1} if phase == "decode" else SIZES

    def empty(axes: str, dtype: torch.dtype) -> Tensor:
        shape = [sizes[axis] for axis in axes.rstrip("?~=!")]
        return torch.empty(shape, dtype=KINDS.get(axes[-1:], dtype), device="meta")

    inputs, state_axes, out_axes = OPS[op]
    states = {axes: empty(axes, dtype if axes.endswith("=") else torch.float32) for axes in state_axes.split()}
    given = [state for axes, state in states.items() if not axes.endswith("!")]
    tensors = [axes if isinstance(axes, Tensor) else empty(axes, dtype) for axes in inputs]
    output = empty(out_axes, dtype)
    if phase == "backward":
        module.backward(*tensors, *given, output, *states.values(), output, *given)
    else:
        module.forward(*tensors, *given)


def _signature(launch: Launch) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], list]]:
    """Types, constants and alignment, as triton's own launcher would specialise them."""
    types, constants, aligned = {}, {}, {}
    for i, (parameter, (name, value)) in enumerate(zip(launch.kernel.params, launch.arguments.items(), strict=True)):
        if parameter.is_constexpr or value is None or (isinstance(value, int) and value == 1):
            types[name], constants[name] = "constexpr", value
            continue
        types[name] = POINTERS[value.dtype] if isinstance(value, Tensor) else "fp32" if isinstance(value, float) else "i32"
        if isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0):
            aligned[(i,)] = [["tt.divisibility", 16]]
    return types, constants, aligned


def compiled(launch: Launch, target: str) -> Record:
    """Compiles one kernel for a target and reads the result."""
    types, constants, aligned = _signature(launch)
    start = time.perf_counter()
    binary = triton.compile(ASTSource(launch.kernel, types, constants, aligned), TARGETS[target], launch.options)
    read = _read_cubin if "cubin" in binary.asm else _read_amdgcn
    return Record(
        target,
        launch.op,
        launch.phase,
        launch.kernel.__name__,
        launch.dtype,
        *read(binary),
        seconds=round(time.perf_counter() - start, 2),
    )


def _read_cubin(binary: Any) -> tuple[int, int, int, int, int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage, sass = _cuobjdump("-res-usage", file.name), _cuobjdump("-sass", file.name)
    (registers,), (stack,) = re.findall(r"REG:(\d+)", usage), re.findall(r"STACK:(\d+)", usage)
    opcodes = SASS_LINE.findall(sass)
    matrix = sum(bool(SASS_MATRIX.match(opcode)) for opcode in opcodes)
    # No kernel here has arrays of its own on the stack: what lies there was spilled.
    return int(registers), int(stack), binary.metadata.shared, matrix, len(opcodes)


def _cuobjdump(option: str, path: str) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return subprocess.run([tool, option, path], capture_output=True, text=True, check=True).stdout


def _read_amdgcn(binary: Any) -> tuple[int, int, int, int, int]:
    text = binary.asm["amdgcn"]
    (registers,), (spilled,) = (re.findall(rf"\.{name}:\s+(\d+)", text) for name in ("vgpr_count", "vgpr_spill_count"))
    instructions = re.findall(r"^\t([a-z]\w+)", text, re.MULTILINE)
    matrix = sum(name.startswith("v_mfma") for name in instructions)
    # Scalar registers spill to lanes of vector registers, not to memory: those are not counted.
    return int(registers), 4 * int(spilled), binary.metadata.shared, matrix, len(instructions)


def compile_all(targets: list[str], ops: list[str]) -> Iterator[Record]:
    """Yields one record per kernel variant, dtype and target."""
    for target in targets:
        for op in ops:
            for dtype in DTYPES:
                for launch in launches(op, dtype, target):
                    yield compiled(launch, target)


def table(records: list[Record]) -> Table:
    """The records as a table."""
    numbers = frozenset(name for name, kind in Record.__annotations__.items() if kind is not str)
    rows = tuple(tuple(map(str, record)) for record in records)
    return Table("Kernels, compiled ahead of time", Record._fields, rows, right=numbers)


def main(arguments: list[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m hybridlab.measure.aot", description="compile kernels ahead of time")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=["sm_90"], metavar="TARGET")
    parser.add_argument("--ops", nargs="+", choices=OPS, default=list(OPS), metavar="OP")
    parser.add_argument("--json", action="store_true", help="records as JSON instead of a table")
    chosen = parser.parse_args(arguments)
    if os.environ.get("TRITON_INTERPRET") == "1":
        print("TRITON_INTERPRET=1 is set: interpreted kernels cannot be compiled; unset it", file=sys.stderr)
        return 2
    records = list(compile_all(chosen.targets, chosen.ops))
    print(json.dumps([record._asdict() for record in records], indent=1) if chosen.json else table(records).text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
