"""Kernels of bits against integers that numpy multiplies, and against the quantizers themselves."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superbit.upstreams.quantization.elastic import ElasticQuantizer
from superbit.upstreams.quantization.kernels import choose
from superbit.upstreams.quantization.thresholds import (
    ALWAYS,
    NEVER,
    float_thresholds,
    integer_thresholds,
)

pytest.importorskip("numba")

from superbit.upstreams.quantization.kernels.blocks import emit_block
from superbit.upstreams.quantization.kernels.depthwise import depthwise
from superbit.upstreams.quantization.kernels.products import multiply
from superbit.upstreams.quantization.kernels.rows import (
    arranged,
    binarize_rows,
    minus_ones,
    row_bytes,
    unpacked,
)

# Every algorithm that this machine can run, the slow ones too.
ALGORITHMS = [
    choose.made(kernel.name, width)
    for kernel in choose.KERNELS
    for width, needed in kernel.needs.items()
    if set(needed) <= choose.features() or kernel.name == "popcount"
]


def _rows(bits: np.ndarray) -> np.ndarray:
    rows = np.zeros((len(bits), row_bytes(bits.shape[1])), np.uint8)
    packed = np.packbits(bits, axis=1, bitorder="little")
    rows[:, : packed.shape[1]] = packed
    return rows


def _multiplied(
    algorithm: object, op: str, epilogue: str, x: np.ndarray, w: np.ndarray, **given: np.ndarray
) -> np.ndarray:
    """Run a product on bits (T, K) and (N, K)."""
    rows, weights = _rows(x), arranged(w, algorithm)
    total = len(weights) * algorithm.outputs

    def filled(values: np.ndarray) -> np.ndarray:
        whole = np.zeros(total, values.dtype)
        whole[: len(values)] = values
        return whole

    offsets = np.full(len(x), x.shape[1], np.int32)
    if op == "and":
        minus_ones(rows, offsets)
    first, second = filled(given["first"]), filled(given.get("second", np.zeros(0, np.float32)))
    kind, columns = {
        "counts": (np.uint8, total),
        "floats": (np.float32, total),
        "bits": (np.uint8, total // 8),
    }[epilogue]
    out = np.zeros((len(x), columns), kind)
    multiply(
        algorithm,
        op,
        epilogue,
        rows=rows,
        weights=weights,
        offsets=offsets,
        first=first,
        second=second,
        out=out,
    )
    return unpacked(out, len(w)) if epilogue == "bits" else out[:, : len(w)]


def _sums(op: str, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Products of levels in int64: x is ±1 (xor) or 0 and 1 (and), w is ±1."""
    left = x.astype(np.int64) if op == "and" else 2 * x.astype(np.int64) - 1
    return left @ (2 * w.astype(np.int64) - 1).T


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: each.name)
@pytest.mark.parametrize("op", ["xor", "and"])
def test_a_product_is_the_integers_product(algorithm, op):
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.integers(1, 17), st.integers(1, 700), st.integers(1, 300), st.integers(0, 2**32 - 1))
    def check(frames, inputs, outputs, seed):
        random = np.random.default_rng(seed)
        x = random.integers(0, 2, (frames, inputs), dtype=np.uint8)
        w = random.integers(0, 2, (outputs, inputs), dtype=np.uint8)
        wanted = _sums(op, x, w)
        scale = random.standard_normal(outputs).astype(np.float32)
        bias = random.standard_normal(outputs).astype(np.float32)
        floats = _multiplied(algorithm, op, "floats", x, w, first=scale, second=bias)
        assert np.array_equal(floats, wanted.astype(np.float32) * scale + bias)
        # thresholds that a sum just reaches and just misses
        limits = (wanted[random.integers(frames)] + random.integers(-1, 2, outputs)).astype(
            np.int32
        )
        bits = _multiplied(algorithm, op, "bits", x, w, first=limits)
        assert np.array_equal(bits, wanted >= limits)

    check()


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: each.name)
def test_counts_are_the_bits_that_differ(algorithm):
    random = np.random.default_rng(0)
    for inputs, outputs in ((4, 1), (36, 33), (64, 500), (128, 65)):
        x = random.integers(0, 2, (7, inputs), dtype=np.uint8)
        w = random.integers(0, 2, (outputs, inputs), dtype=np.uint8)
        counts = _multiplied(algorithm, "xor", "counts", x, w, first=np.zeros(0, np.int32))
        assert np.array_equal(counts, (x[:, None] != w[None]).sum(axis=2))


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: each.name)
def test_the_largest_counts_do_not_overflow(algorithm):
    """All bits differ: every byte that sums counts is as full as it gets."""
    for inputs in (247, 248, 249, 3072):
        x, w = np.ones((3, inputs), np.uint8), np.zeros((70, inputs), np.uint8)
        one, zero = np.ones(70, np.float32), np.zeros(70, np.float32)
        floats = _multiplied(algorithm, "xor", "floats", x, w, first=one, second=zero)
        assert (floats == -inputs).all()


def test_rows_are_binarized_by_comparison():
    random = np.random.default_rng(1)
    for channels in (1, 31, 32, 33, 100):
        x = random.standard_normal((5, channels)).astype(np.float32)
        limits = x[2].copy()  # reached exactly by one row
        out = np.full((5, row_bytes(channels)), 255, np.uint8)
        binarize_rows(x, limits, out)
        assert np.array_equal(unpacked(out, 8 * out.shape[1])[:, :channels], x >= limits)
        assert not unpacked(out, 8 * out.shape[1])[:, channels:].any()


@pytest.mark.parametrize("taps", [1, 3, 31, 63])
def test_a_depthwise_convolution_is_torchs(taps):
    torch.manual_seed(taps)
    x, limits = torch.randn(6, 40), torch.randn(6) * 0.1
    weight = torch.randint(0, 2, (6, 1, taps))
    words = (weight[:, 0].numpy().astype(np.uint64) << np.arange(taps, dtype=np.uint64)).sum(
        axis=1, dtype=np.uint64
    )
    out = torch.empty_like(x)
    depthwise(x.numpy(), limits.numpy(), words, taps, out.numpy())
    levels = torch.where(x >= limits[:, None], 1.0, -1.0)
    wanted = torch.nn.functional.conv1d(
        levels[None], 2.0 * weight - 1.0, padding=taps // 2, groups=6
    )[0]
    assert torch.equal(out, wanted)


@pytest.mark.parametrize("signed", [True, False])
@settings(max_examples=50, deadline=None)
@given(scale=st.floats(1e-6, 1e3), shift=st.floats(-1e3, 1e3, width=32), seed=st.integers(0, 99))
def test_one_float_is_a_quantizers_step(signed, scale, shift, seed):
    quantizer = ElasticQuantizer(bits=1, signed=signed, shift_shape=(4,))
    with torch.no_grad():
        quantizer.scale.fill_(scale)
        quantizer.shift.copy_(shift + torch.randn(4, generator=torch.manual_seed(seed)))
    quantizer.ready = True
    limits = float_thresholds(quantizer, 4)
    below = torch.nextafter(limits, torch.tensor(-torch.inf))
    with torch.no_grad():
        assert (quantizer.levels(limits)[0] > 0).all()
        assert not (quantizer.levels(below)[0] > 0).any()
        for x in (torch.randn(4), torch.zeros(4), -quantizer.shift, 1e5 * torch.randn(4)):
            assert torch.equal(quantizer.levels(x)[0] > 0, x >= limits)


def test_an_integer_threshold_is_the_first_sum_that_reaches():
    scale, bias = torch.tensor([0.1, 0.1, 0.1, 1e-5]), torch.tensor([0.0, 0.5, -100.0, 5.0])
    limits = torch.tensor([0.3, 0.3, 0.3, 0.3])

    def output(d):
        return d * scale + bias

    found = integer_thresholds(output, limits, largest=64)
    assert found[2] == NEVER
    assert found[3] == ALWAYS
    for d in range(-64, 65):
        reached = output(torch.full((4,), float(d))) >= limits
        assert torch.equal(reached, d >= found)


@pytest.mark.parametrize(("width", "instruction"), [(16, "cnt"), (32, "cnt")])
def test_the_general_way_compiles_for_arm(width, instruction):
    """To assembly only: there is no such processor here. NEON counts the bits of bytes by cnt."""
    from llvmlite import binding, ir

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    module = ir.Module(name="block")
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 10)
    function = ir.Function(module, kind, name="block")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    emit_block(
        builder,
        choose.made("generic", width),
        function.args,
        rows=2,
        vectors=4,
        op="xor",
        epilogue="bits",
    )
    builder.ret_void()
    module.triple = "aarch64-unknown-linux-gnu"
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    machine = binding.Target.from_triple(module.triple).create_target_machine(
        cpu="neoverse-n1", opt=2
    )
    assert re.search(rf"\b{instruction}\s+v\d+\.", machine.emit_assembly(parsed))


def test_without_a_folder_for_compiled_code_each_process_compiles(tmp_path):
    """As where superbit is installed for all and a user has no folder of caches."""
    import os
    import subprocess
    import sys

    code = (
        "import numba, numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "from superbit.upstreams.quantization.kernels.machine_code import jitted\n"
        "def double(x):\n    return 2 * x\n"
        "print(jitted(double)(21))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.stdout.strip() == "42", done.stderr
