"""The arena: nothing that lives at the same time overlaps, and what is dead makes room."""

import numpy as np
import pytest

from automc.compiler.arena import Lifetime, plan
from automc.compiler.isa import ALIGNMENT
from automc.compiler.lowering import lower
from automc.compiler.memory import plan_memory
from automc.compiler.targets import find_target
from automc.errors import InputError
from tests.programs import Builder


@pytest.mark.parametrize("seed", range(5))
def test_what_lives_together_does_not_overlap(seed):
    random = np.random.default_rng(seed)
    lifetimes = {}
    for position in range(30):
        first = int(random.integers(0, 20))
        lifetimes[(position, "tensor")] = Lifetime(
            int(random.integers(1, 5000)), first, first + int(random.integers(6))
        )
    offsets, total = plan(lifetimes)
    for name, mine in lifetimes.items():
        assert offsets[name] % ALIGNMENT == 0
        assert offsets[name] + mine.size_bytes <= total
        for other, theirs in lifetimes.items():
            if other != name and mine.meets(theirs):
                apart = offsets[name] + mine.size_bytes <= offsets[other]
                assert apart or offsets[other] + theirs.size_bytes <= offsets[name]
    assert total < sum(lifetime.size_bytes for lifetime in lifetimes.values())


def test_an_arena_that_32_bits_cannot_address_is_refused():
    def program(rows):
        builder = Builder(np.random.default_rng(0), (1, rows, 1 << 14))
        return builder.finish(builder.pool(builder.input, "max", (rows, 1 << 14)))

    assert lower(program((1 << 17) - 1), find_target("portable")).arena_bytes < 1 << 31
    for target in ("portable", "opencl"):
        with pytest.raises(InputError, match=r"needs an arena of \d{10} bytes; it must be smaller than 2 GiB"):
            lower(program(1 << 17), find_target(target))


def test_memory_is_used_again():
    """A chain of equal tensors needs two of them at a time, whatever its length."""

    def chain(length):
        builder = Builder(np.random.default_rng(0), (16, 12, 12))
        current = builder.input
        for _ in range(length):
            current = builder.convolve(current, 16)
        return plan_memory(builder.finish(current), "portable")

    assert chain(6) == chain(3)


def test_a_sum_is_written_over_a_residual_that_nothing_reads_again():
    def block(again):
        builder = Builder(np.random.default_rng(0), (3, 12, 12))
        first = builder.convolve(builder.input, 16)
        second = builder.convolve(builder.convolve(first, 16), 16, residual=first)
        last = builder.convolve(second, 16)
        return plan_memory(builder.finish(builder.sum(last, first) if again else last), "portable")

    tensor = 14 * 14 * 16
    assert block(again=False) < 2 * tensor + 2000
    assert block(again=True) > 3 * tensor


@pytest.mark.parametrize("target", ["avx2", "avx512vnni"])
def test_a_tile_reads_all_its_residuals_before_it_stores_any(target):
    """A processor cannot forward a store of some lanes to the next pixel's load of all of them, and would wait."""
    builder = Builder(np.random.default_rng(0), (3, 12, 12))
    first = builder.convolve(builder.input, 12)
    added = builder.convolve(first, 12, residual=first)
    lowered = lower(builder.finish(builder.convolve(added, 12)), find_target(target))
    (code,) = (kernel.code for kernel in lowered.kernels if "residual_multiplier" in kernel.code)
    lines = [line for line in code.splitlines() if "acc_bytes(" in line or "store_bytes(" in line]
    reads = ["acc_bytes(" in line for line in lines]
    assert reads == sorted(reads, reverse=True)
    assert sum(reads) > 1
