"""Grids of activations and weights, and rounding that compensates its errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from automc.compression.compensate import round_compensated
from automc.compression.quantize import Grid, activation_grid, levels_of, nearest, weight_scales


def random_gram(width: int, seed: int, groups: int = 1) -> torch.Tensor:
    rows = np.random.default_rng(seed).normal(size=(groups, 4 * width, width)) @ np.tri(width)
    return torch.tensor(rows.transpose(0, 2, 1) @ rows / (4 * width))


def random_weight(groups: int, outputs: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=(groups, outputs, width)))


def error(weight: torch.Tensor, rounded: torch.Tensor, gram: torch.Tensor) -> float:
    difference = weight - rounded
    return float((difference @ gram * difference).sum())


def test_a_grid_stores_the_nearest_value_and_saturates():
    grid = Grid(bits=2, scale=0.5, zero_point=1)
    values = np.array([-3.0, -0.5, 0.0, 0.2, 0.3, 1.0, 9.0], np.float32)
    assert grid.store(values).tolist() == [0, 0, 1, 1, 2, 3, 3]
    assert grid.read(np.arange(4, dtype=np.uint8)).tolist() == [-0.5, 0.0, 0.5, 1.0]


@pytest.mark.parametrize("bits", range(2, 9))
def test_zero_is_exact_and_the_zero_point_is_zero_where_nothing_is_negative(bits):
    values = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    both, positive = activation_grid(values, bits), activation_grid(np.maximum(values, 0), bits)
    assert positive.zero_point == 0
    assert 0 < both.zero_point < both.top
    for grid in (both, positive):
        assert grid.read(grid.store(np.zeros(1))) == 0


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_range_is_shrunk_only_where_that_is_better(bits):
    values = np.abs(np.random.default_rng(0).normal(size=4000)).astype(np.float32)

    def loss(grid: Grid) -> float:
        return float(np.square(grid.read(grid.store(values)) - values).mean())

    whole = Grid(bits, float(values.max()) / ((1 << bits) - 1), 0)
    chosen = activation_grid(values, bits)
    assert loss(chosen) <= loss(whole)
    if bits == 2:
        assert loss(chosen) < 0.7 * loss(whole)


def test_a_tensor_of_zeros_has_a_grid():
    grid = activation_grid(np.zeros(10, np.float32), 4)
    assert grid == Grid(4, 1.0, 0)


@pytest.mark.parametrize("bits", range(2, 9))
def test_weight_scales_beat_the_largest_weights_scale(bits):
    weight = random_weight(2, 5, 40)
    scale, largest = weight_scales(weight, bits), weight.abs().amax(-1) / ((1 << (bits - 1)) - 1)
    rounded = [nearest(weight, step, levels_of(bits)) * step[..., None] for step in (scale, largest)]
    errors = [(values - weight).square().sum(-1) for values in rounded]
    assert (errors[0] <= errors[1]).all()
    assert scale.shape == (2, 5)


def test_two_bits_are_ternary():
    weight = random_weight(1, 4, 100)
    assert set(nearest(weight, weight_scales(weight, 2), levels_of(2)).unique().tolist()) == {-1.0, 0.0, 1.0}


def test_a_row_of_zeros_stays_zero():
    weight = random_weight(1, 3, 10)
    weight[0, 1] = 0
    scale = weight_scales(weight, 4)
    assert scale[0, 1] == 0
    codes = round_compensated(weight, scale, random_gram(10, 0), levels_of(4))
    assert (codes[0, 1] == 0).all()
    assert (codes[0, 0] != 0).any()


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_compensation_lessens_the_error_of_the_output(bits):
    weight, gram = random_weight(1, 8, 150), random_gram(150, 1)  # more columns than one block
    scale = weight_scales(weight, bits)
    codes = round_compensated(weight, scale, gram, levels_of(bits))
    top = (1 << (bits - 1)) - 1
    assert codes.abs().max() <= top
    assert torch.equal(codes, codes.round())
    plain = nearest(weight, scale, levels_of(bits))
    assert error(weight, codes * scale[..., None], gram) < 0.7 * error(weight, plain * scale[..., None], gram)


def test_independent_inputs_leave_nothing_to_compensate():
    weight, gram = random_weight(1, 4, 70), torch.diag(torch.arange(1.0, 71, dtype=torch.float64))[None]
    scale = weight_scales(weight, 4)
    assert torch.equal(round_compensated(weight, scale, gram, levels_of(4)), nearest(weight, scale, levels_of(4)))


def test_groups_are_rounded_as_if_each_were_alone():
    weight, gram = random_weight(3, 2, 9), random_gram(9, 2, groups=3)
    scale = weight_scales(weight, 3)
    together = round_compensated(weight, scale, gram, levels_of(3))
    for group in range(3):
        one = slice(group, group + 1)
        assert torch.equal(together[one], round_compensated(weight[one], scale[one], gram[one], levels_of(3)))


def test_an_input_that_is_always_zero_is_no_obstacle():
    weight = random_weight(1, 2, 5)
    codes = round_compensated(weight, weight_scales(weight, 8), torch.zeros(1, 5, 5, dtype=torch.float64), levels_of(8))
    assert torch.equal(codes, nearest(weight, weight_scales(weight, 8), levels_of(8)))
