"""Binary32 arithmetic in integers, against the processor's: all bits equal."""

import ctypes

import numpy as np
import pytest

from automc.compiler.emit import _PRELUDE
from automc.compiler.targets.portable import LANES_OF_INTEGERS, PORTABLE
from automc.compiler.targets.soft import LANES_OF_SOFT_FLOATS
from automc.compiler.toolchain import tool_chain

EXPORTS = """
void scale(const int32_t *a, const float *m, float *out) {
  store_values(out, 8, value_scale(acc_load(a), value_load(m)));
}
void add(const float *a, const float *b, float *out) { store_values(out, 8, value_add(value_load(a), value_load(b))); }
void store(const float *a, uint8_t *out, int low, int high, int zero) {
  store_bytes(out, 8, value_load(a), low, high, zero);
}
"""
COUNT = 8 * 4096


@pytest.fixture(scope="module")
def soft(tmp_path_factory):
    folder = tmp_path_factory.mktemp("soft")
    (folder / "soft.c").write_text(_PRELUDE + LANES_OF_INTEGERS + LANES_OF_SOFT_FLOATS + EXPORTS)
    tool_chain("zig", PORTABLE).compile([folder / "soft.c"], folder / "soft.so")
    return ctypes.CDLL(str(folder / "soft.so"))


def lane_by_lane(function, first, second):
    out = np.empty(len(first), np.float32)
    for at in range(0, len(first), 8):
        function(*(each[at:].ctypes.data_as(ctypes.c_void_p) for each in (first, second, out)))
    return out


def numbers(random, exponents):
    """Of both signs, over a range of exponents; some with few bits, so that ties occur."""
    values = random.uniform(1, 2, COUNT) * 2.0 ** random.integers(*exponents, COUNT) * random.choice([-1, 1], COUNT)
    coarse = np.rint(values * 2) / 2
    return np.where(random.random(COUNT) < 0.3, coarse, values).astype(np.float32)


def test_products_are_rounded_as_the_processor_does(soft):
    random = np.random.default_rng(0)
    accumulators = (random.integers(-(2**31), 2**31, COUNT) >> random.integers(0, 31, COUNT)).astype(np.int32)
    accumulators[:6] = [0, 1, -1, 2**31 - 1, -(2**31), 2**24 + 1]
    multipliers = np.abs(numbers(random, (-30, 8)))
    multipliers[multipliers == 0] = 2.0**-30
    found, meant = lane_by_lane(soft.scale, accumulators, multipliers), accumulators.astype(np.float32) * multipliers
    assert np.array_equal(found.view(np.int32), meant.view(np.int32))


def test_sums_are_rounded_as_the_processor_does(soft):
    random = np.random.default_rng(1)
    first, second = numbers(random, (-20, 40)), numbers(random, (-20, 40))
    second[:500] = -first[:500]  # nothing remains
    second[500:1000] = np.nextafter(-first[500:1000], np.float32(0))  # nearly nothing
    first[1000:1100] = 0
    close = random.integers(1100, COUNT, 4000)
    second[close] = (-first[close] * random.uniform(0.4, 1.6, 4000)).astype(np.float32)
    found, meant = lane_by_lane(soft.add, first, second), first + second
    assert np.array_equal(found.view(np.int32), meant.view(np.int32))


@pytest.mark.parametrize(("low", "high", "zero"), [(0, 255, 0), (3, 200, 128), (0, 15, 15)])
def test_numbers_are_stored_rounded_to_even(soft, low, high, zero):
    random = np.random.default_rng(2)
    values = np.concatenate([numbers(random, (-20, 40)), np.arange(-1024, 1024, dtype=np.float32) / 4])
    out = np.empty(len(values), np.uint8)
    for at in range(0, len(values), 8):
        pointers = (each[at:].ctypes.data_as(ctypes.c_void_p) for each in (values, out))
        soft.store(*pointers, low, high, zero)
    meant = np.rint(np.clip(values, low - zero, high - zero)).astype(np.int32) + zero
    assert np.array_equal(out, meant)
