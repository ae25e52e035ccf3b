"""Every Triton kernel compiles for real GPUs, fits their registers and shared memory, and uses their matrix units."""

import functools
import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="triton exists for Linux only")

pytestmark = pytest.mark.aot

TARGETS = ["sm_90", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sm_80", "sm_100", "gfx942"))]
# What one block may have, in bytes (CUDA programming guide, compute capabilities; the LDS of a CDNA 3 unit).
SHARED_LIMIT = {"sm_80": 166912, "sm_90": 232448, "sm_100": 232448, "gfx942": 65536}

# op, phase, kernel; then fewest matrix instructions, and the range of instructions: one kernel that a compiler had emptied
# came back with 16, and an unrolled loop makes a kernel several times as long.
KERNELS = {
    ("attention", "forward", "forward_kernel"): (8, 800, 6500),
    ("attention", "backward", "query_grads_kernel"): (24, 600, 4500),
    ("attention", "backward", "key_grads_kernel"): (24, 600, 4500),
    ("attention", "decode", "step_kernel"): (0, 200, 1200),
    ("delta_rule", "forward", "pairs_kernel"): (40, 600, 2500),
    ("delta_rule", "forward", "carry_kernel"): (16, 450, 2500),
    ("delta_rule", "forward", "outputs_kernel"): (10, 300, 2000),
    ("delta_rule", "backward", "carry_kernel"): (16, 450, 2500),
    ("delta_rule", "backward", "key_grads_kernel"): (48, 1000, 4500),
    ("delta_rule", "decode", "step_kernel"): (0, 120, 800),
    ("gated_delta_rule", "forward", "pairs_kernel"): (40, 600, 2500),
    ("gated_delta_rule", "forward", "carry_kernel"): (16, 450, 2500),
    ("gated_delta_rule", "forward", "outputs_kernel"): (10, 300, 2000),
    ("gated_delta_rule", "backward", "carry_kernel"): (16, 450, 2500),
    ("gated_delta_rule", "backward", "key_grads_kernel"): (48, 1000, 4500),
    ("gated_delta_rule", "decode", "step_kernel"): (0, 120, 800),
    ("linear_recurrence", "forward", "forward_kernel"): (0, 400, 1800),
    ("linear_recurrence", "backward", "backward_kernel"): (0, 800, 3000),
    ("linear_recurrence", "decode", "forward_kernel"): (0, 50, 300),
    ("long_conv", "forward", "correlate_kernel"): (8, 250, 2000),
    ("long_conv", "backward", "correlate_kernel"): (8, 250, 2000),
    ("long_conv", "decode", "step_kernel"): (0, 180, 800),
    ("modal_conv", "forward", "forward_kernel"): (0, 150, 900),
    ("modal_conv", "backward", "starts_kernel"): (0, 130, 900),
    ("modal_conv", "backward", "backward_kernel"): (0, 600, 2600),
    ("modal_conv", "decode", "forward_kernel"): (0, 130, 500),
    ("rg_lru", "forward", "forward_kernel"): (0, 700, 3000),
    ("rg_lru", "backward", "backward_kernel"): (0, 800, 3200),
    ("rg_lru", "decode", "forward_kernel"): (0, 90, 400),
    ("retention", "forward", "carry_kernel"): (4, 450, 2500),
    ("retention", "forward", "outputs_kernel"): (16, 600, 3500),
    ("retention", "backward", "carry_kernel"): (4, 450, 2500),
    ("retention", "backward", "outputs_kernel"): (16, 600, 3500),
    ("retention", "backward", "key_grads_kernel"): (24, 800, 4500),
    ("retention", "backward", "step_grads_kernel"): (24, 1200, 5500),
    ("retention", "decode", "step_kernel"): (0, 120, 800),
    ("selective_scan", "forward", "forward_kernel"): (0, 400, 1800),
    ("selective_scan", "backward", "starts_kernel"): (0, 400, 1800),
    ("selective_scan", "backward", "backward_kernel"): (0, 1200, 4500),
    ("selective_scan", "decode", "forward_kernel"): (0, 200, 900),
    ("short_conv", "forward", "outputs_kernel"): (0, 200, 1200),
    ("short_conv", "backward", "inputs_kernel"): (0, 200, 1200),
    ("short_conv", "backward", "weights_kernel"): (0, 200, 2000),
    ("short_conv", "decode", "outputs_kernel"): (0, 40, 400),
    ("ssd", "forward", "carry_kernel"): (4, 450, 2500),
    ("ssd", "forward", "outputs_kernel"): (16, 600, 3500),
    ("ssd", "backward", "carry_kernel"): (4, 450, 2500),
    ("ssd", "backward", "outputs_kernel"): (16, 600, 3500),
    ("ssd", "backward", "key_grads_kernel"): (24, 800, 4500),
    ("ssd", "backward", "step_grads_kernel"): (24, 1200, 5500),
    ("ssd", "decode", "step_kernel"): (0, 120, 800),
    ("taylor_attention", "forward", "carry_kernel"): (8, 450, 2500),
    ("taylor_attention", "forward", "mixed_kernel"): (10, 600, 3500),
    ("taylor_attention", "backward", "carry_kernel"): (8, 450, 2500),
    ("taylor_attention", "backward", "mixed_kernel"): (10, 600, 3500),
    ("taylor_attention", "backward", "key_grads_kernel"): (16, 800, 4500),
    ("taylor_attention", "decode", "step_kernel"): (0, 120, 800),
    ("wkv4", "forward", "forward_kernel"): (0, 800, 3500),
    ("wkv4", "backward", "backward_kernel"): (0, 1200, 6000),
    ("wkv4", "decode", "forward_kernel"): (0, 80, 500),
    ("wkv6", "forward", "carry_kernel"): (32, 600, 3500),
    ("wkv6", "forward", "outputs_kernel"): (48, 600, 4000),
    ("wkv6", "backward", "carry_kernel"): (32, 600, 3500),
    ("wkv6", "backward", "value_grads_kernel"): (48, 600, 4000),
    ("wkv6", "backward", "key_grads_kernel"): (112, 1200, 6000),
    ("wkv6", "decode", "step_kernel"): (0, 120, 800),
    ("wkv7", "forward", "pairs_kernel"): (40, 700, 3000),
    ("wkv7", "forward", "carry_kernel"): (16, 700, 3500),
    ("wkv7", "forward", "outputs_kernel"): (8, 300, 2000),
    ("wkv7", "backward", "carry_kernel"): (16, 800, 3500),
    ("wkv7", "backward", "outputs_kernel"): (8, 300, 2000),
    ("wkv7", "backward", "asked_kernel"): (24, 300, 1500),
    ("wkv7", "backward", "key_grads_kernel"): (72, 1200, 6000),
    ("wkv7", "decode", "step_kernel"): (0, 120, 800),
}
# Bytes a thread. All others spill none; this one (wkv6's and wkv7's) fills all 255 registers in float32, three products a
# product.
SPILL_LIMIT = {("sm_100", "key_grads_kernel", "float32"): 40}


def run_aot(*arguments: str, interpret: bool = False) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-m", "hybridlab.measure.aot", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@functools.cache
def records(target: str) -> list[dict]:
    done = run_aot("--targets", target, "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel_compiles_in_both_dtypes(target: str) -> None:
    # Once for each variant: with and without an argument, forwards and in reverse.
    found = sorted({(x["op"], x["phase"], x["kernel"], x["dtype"]) for x in records(target)})
    assert found == sorted((*kernel, dtype) for kernel in KERNELS for dtype in ("float32", "bfloat16"))


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_spills_from_registers(target: str) -> None:
    for x in records(target):
        assert x["spilled"] <= SPILL_LIMIT.get((target, x["kernel"], x["dtype"]), 0), x
        assert 4 <= x["registers"] <= 256, x  # a step of linear_recurrence on gfx942 takes 6


@pytest.mark.parametrize("target", TARGETS)
def test_shared_memory_fits_a_block(target: str) -> None:
    assert max(x["shared"] for x in records(target)) > 0
    for x in records(target):
        assert x["shared"] <= SHARED_LIMIT[target], x


@pytest.mark.parametrize("target", TARGETS)
def test_chunks_run_on_matrix_units(target: str) -> None:
    for x in records(target):
        fewest, _, _ = KERNELS[x["op"], x["phase"], x["kernel"]]
        assert x["matrix"] >= fewest, x
        assert fewest or x["matrix"] == 0, f"counted as matrix instructions, but are not: {x}"


@pytest.mark.parametrize("target", TARGETS)
def test_instruction_counts_are_sane(target: str) -> None:
    for x in records(target):
        _, fewest, most = KERNELS[x["op"], x["phase"], x["kernel"]]
        assert fewest <= x["instructions"] <= most, x


def test_refuses_the_interpreter() -> None:
    done = run_aot("--json", interpret=True)
    assert done.returncode == 2
    assert "TRITON_INTERPRET" in done.stderr


def test_table_lists_every_record() -> None:
    done = run_aot("--ops", "wkv4")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("sm_90") == 6
    assert "registers" in done.stdout
