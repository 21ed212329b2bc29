"""Costs of policies: kernels from shapes, sums over a table, and interpolation that says so."""

from dataclasses import replace

import numpy as np
import pytest

from automc.choices import Choice, Codebook, Gated, LowRank, Sparse, Uniform
from automc.compiler.sizes import stored_bytes
from automc.compression.policy import Policy
from automc.cost.kernels import Kernel, KernelPlan
from automc.cost.lookup import Lookup
from automc.cost.model import CostModel
from automc.errors import TableError
from tests.cost_examples import kernels_of, residual_network, splitting_network, table_for

POLICY = Policy(
    keep_ratio={"a": 0.5, "b": 0.75}, weights={"b": Uniform(weight_bits=4)}, activation_bits={"a": 6, "total": 5}
)
EXPECTED = (
    Kernel("quantise", 8, 8, 1, 1),
    Kernel("convolve", 8, 8, 1, 8, 3, 3, 1, 1, 8, 8),
    Kernel("convolve", 4, 4, 8, 12, 3, 3, 2, 2, 4, 6),
    Kernel("convolve", 4, 4, 12, 12, 3, 3, 1, 1, 8, 8, True),
    Kernel("pool_mean", 1, 1, 12, 12, 4, 4, 4, 4),
    Kernel("convolve", 1, 1, 12, 10, 1, 1, 1, 1, 8, 8),
)


def plane(inputs: int, outputs: int, **settings: int) -> Kernel:
    """A 3x3 convolution on 8x8 pixels."""
    return Kernel("convolve", 8, 8, inputs, outputs, 3, 3, 1, 1, 8, 8)._replace(**settings)


def told(lookup: Lookup, kernel: Kernel) -> tuple[float, bool]:
    """What a table says, and whether it is interpolated."""
    found = lookup(kernel)
    return found.latency_ms, found.interpolated


def test_kernels_follow_from_shapes_after_pruning() -> None:
    assert kernels_of(residual_network(), POLICY) == EXPECTED
    dense = kernels_of(residual_network(), Policy())
    assert sum(kernel.macs for kernel in dense) == residual_network().macs


def test_the_order_of_removal_decides_where_channels_are_split() -> None:
    policy = Policy(keep_ratio={"a": 0.5})
    ascending = KernelPlan(splitting_network()).steps(policy)
    descending = KernelPlan(splitting_network(), {"a": np.arange(8)[::-1]}).steps(policy)
    assert [step.kernel.inputs for step in ascending] == [1, 1, 4, 0]
    assert [step.kernel.inputs for step in descending] == [1, 1, 4, 4]


def test_a_policy_costs_the_sum_of_its_rows_and_one_call() -> None:
    latencies = {kernel: 0.001 * 2**position for position, kernel in enumerate(EXPECTED)}
    model = CostModel(residual_network(), table_for(latencies, overhead_ms=0.5))
    cost = model.cost(POLICY)
    assert cost.latency_ms == pytest.approx(0.5 + 0.001 * 63)
    assert cost.interpolated == ()
    assert cost.source == "measured"
    assert cost.macs == 64 * 9 * 8 + 16 * 9 * 96 + 16 * 9 * 144 + 120
    shapes = {(8, 1, 3, 3): 8, (12, 8, 3, 3): 4, (12, 12, 3, 3): 8, (10, 12, 1, 1): 8}
    assert cost.size_bytes == sum(stored_bytes(shape, bits) for shape, bits in shapes.items())
    assert cost.energy_mj is not None
    assert cost.energy_mj == pytest.approx(model.energy(POLICY).total_mj)


def test_layers_without_a_row_are_named() -> None:
    latencies = dict.fromkeys(EXPECTED, 0.001)
    model = CostModel(residual_network(), table_for(latencies))
    assert model.cost(POLICY.model_copy(update={"weights": {"b": Uniform(weight_bits=5)}})).interpolated == ("b",)
    assert model.cost(Policy(keep_ratio={"a": 0.5})).interpolated == ("b", "c", "mean", "result")


def test_between_rows_the_estimate_is_linear_in_tiles() -> None:
    lookup = Lookup(table_for({plane(4, 8): 1.0, plane(16, 8): 4.0, plane(4, 32): 2.0, plane(16, 32): 8.0}))
    assert told(lookup, plane(4, 8)) == (1.0, False)
    assert told(lookup, plane(8, 8)) == (2.0, True)
    assert told(lookup, plane(7, 8)) == told(lookup, plane(8, 8))  # a row of three pixels is six steps
    assert lookup(plane(4, 16)).latency_ms == pytest.approx(1 + 1 / 3)
    assert lookup(plane(8, 16)).latency_ms == pytest.approx((2 * 2 + 4) / 3)


def test_a_channel_count_within_a_tile_costs_the_tile() -> None:
    lookup = Lookup(table_for({plane(16, 16): 3.0}))
    assert told(lookup, plane(15, 9)) == (3.0, True)


def test_beyond_the_rows_the_estimate_is_in_proportion_to_the_work() -> None:
    lookup = Lookup(table_for({plane(8, 16): 1.0, plane(16, 16): 2.0}))
    assert lookup(plane(32, 16)).latency_ms == pytest.approx(4.0)
    assert lookup(plane(4, 8)).latency_ms == pytest.approx(0.25)


def test_a_hole_in_the_grid_falls_back_to_the_nearest_row() -> None:
    lookup = Lookup(table_for({plane(4, 8): 1.0, plane(16, 32): 8.0}))
    assert lookup(plane(12, 32)).latency_ms == pytest.approx(6.0)


def test_unmeasured_bits_cost_what_the_nearest_measured_sum_of_bits_costs() -> None:
    rows = {plane(8, 8, weight_bits=w, activation_bits=a): t for (w, a), t in {(8, 8): 3.0, (4, 8): 1.0}.items()}
    lookup = Lookup(table_for(rows))
    assert told(lookup, plane(8, 8, weight_bits=8, activation_bits=4)) == (1.0, True)
    assert told(lookup, plane(8, 8, weight_bits=7, activation_bits=8)) == (3.0, True)
    assert told(lookup, plane(8, 8, weight_bits=6, activation_bits=8)) == (3.0, True)  # as near to both: the dearer


def test_bits_with_few_rows_borrow_the_surface_of_bits_with_many() -> None:
    grid = {plane(i, o): 1.0 + i * o for i in (4, 8, 16) for o in (8, 16, 32)}
    few = {plane(4, 8, weight_bits=4): 11.0, plane(16, 32, weight_bits=4): 171.0}
    lookup = Lookup(table_for({**grid, **few}))
    near_the_end = 171.0 * (1 + 16 * 16) / (1 + 16 * 32)
    assert told(lookup, plane(16, 16, weight_bits=4)) == (pytest.approx(near_the_end), True)
    assert lookup(plane(4, 16, weight_bits=4)).latency_ms == pytest.approx(11.0 * (1 + 4 * 16) / (1 + 4 * 8))


def test_a_residual_adds_what_it_adds_to_other_kernels() -> None:
    grid = {plane(i, o): 1.0 * i * o for i in (4, 16) for o in (8, 16)}
    added = {plane(4, o, residual=1): 4.0 * o + 0.5 * o for o in (8, 16)}
    lookup = Lookup(table_for({**grid, **{kernel._replace(residual=True): t for kernel, t in added.items()}}))
    assert told(lookup, plane(16, 16)._replace(residual=True)) == (pytest.approx(256 + 8), True)
    assert told(lookup, plane(16, 8)._replace(residual=True)) == (pytest.approx(128 + 4), True)


def test_another_geometry_is_scaled_by_its_work() -> None:
    lookup = Lookup(table_for({plane(8, 8): 1.0, plane(8, 8, kernel_height=1, kernel_width=1): 0.2}))
    assert told(lookup, plane(8, 8, height=16)) == (2.0, True)
    assert told(lookup, plane(8, 8, residual=True)) == (1.0, True)
    assert lookup(plane(16, 8, height=4, width=4, kernel_height=1, kernel_width=1)).latency_ms == pytest.approx(0.1)


def test_a_dilated_window_is_estimated_by_those_without_gaps() -> None:
    lookup = Lookup(table_for({plane(8, 8): 6.0, plane(8, 8, dilation_height=3): 7.0}))
    assert told(lookup, plane(6, 8, dilation_width=2)) == (6.0, True)  # three runs of two steps
    assert told(lookup, plane(8, 8, dilation_height=3)) == (7.0, False)
    assert told(lookup, plane(8, 8)) == (6.0, False)


def test_uncertainty_grows_with_the_distance_to_the_nearest_row() -> None:
    lookup = Lookup(table_for({plane(i, o): 1.0 * i * o for i in (4, 16, 64) for o in (8, 64)}))

    def uncertain(kernel: Kernel) -> float:
        found = lookup(kernel)
        return found.uncertainty_ms / found.latency_ms

    row = uncertain(plane(16, 64))
    near, middle, beyond = (uncertain(plane(16, outputs)) for outputs in (56, 24, 512))
    assert 0 < row < near < middle < beyond
    assert uncertain(plane(16, 57)) == uncertain(plane(16, 61))  # as many vectors
    assert near < uncertain(plane(16, 56, weight_bits=4))
    assert near < uncertain(plane(16, 56, height=16))
    assert near < uncertain(plane(16, 56, encoding="sparse"))
    assert uncertain(plane(16, 56, height=16)) < uncertain(plane(16, 56, height=32))


def test_the_uncertainty_of_a_row_is_that_of_its_timings_or_its_bracket() -> None:
    table = table_for({plane(4, 8): 1.0})
    (row,) = table.rows
    timed = Lookup(table)(row.kernel).uncertainty_ms
    longer = Lookup(replace(table, rows=(replace(row, count=4 * row.count),)))(row.kernel).uncertainty_ms
    assert timed == pytest.approx(2 * longer)
    simulated = replace(row, source="simulated", spread_ms=0.4, count=1)
    assert Lookup(replace(table, rows=(simulated,)))(row.kernel).uncertainty_ms == pytest.approx(0.2)


def test_a_policys_uncertainty_is_the_sum_of_its_layers() -> None:
    model = CostModel(residual_network(), table_for(dict.fromkeys(EXPECTED, 0.001)))
    prices = model.layer_prices(Policy(keep_ratio={"a": 0.5}))
    total = sum(price.uncertainty_ms for price in prices.values())
    assert model.cost(Policy(keep_ratio={"a": 0.5})).uncertainty_ms == pytest.approx(total)
    assert model.cost(POLICY).uncertainty_ms < total


def test_an_operation_without_any_row_is_refused_before_time_is_spent() -> None:
    latencies = {kernel: 0.001 for kernel in EXPECTED if kernel.operation != "pool_mean"}
    with pytest.raises(TableError, match=r"no row of the operation 'pool_mean'; run `automc measure`"):
        CostModel(residual_network(), table_for(latencies))


def test_weights_stored_otherwise_take_what_dense_ones_take_without_skipped_blocks() -> None:
    lookup = Lookup(table_for({plane(4, 8): 1.0, plane(16, 8): 4.0}))
    assert told(lookup, plane(16, 8, encoding="codebook")) == (4.0, True)
    assert told(lookup, plane(16, 8, encoding="sparse")) == (4.0, True)
    assert told(lookup, plane(16, 8, encoding="blocks", density_percent=25)) == (1.0, True)
    known = plane(16, 8, encoding="blocks", density_percent=25)
    lookup = Lookup(table_for({plane(4, 8): 1.0, plane(16, 8): 4.0, known: 1.5}))
    assert told(lookup, known) == (1.5, False)
    assert told(lookup, known._replace(density_percent=50)) == (3.0, True)
    assert told(lookup, plane(16, 8)) == (4.0, False)


def test_single_zeros_are_priced_by_their_share() -> None:
    tenth, most = (plane(16, 8, encoding="sparse", density_percent=percent) for percent in (10, 90))
    lookup = Lookup(table_for({plane(16, 8): 4.0, tenth: 1.0, most: 5.0}))
    assert [told(lookup, kernel) for kernel in (tenth, most)] == [(1.0, False), (5.0, False)]
    assert told(lookup, tenth._replace(density_percent=13)) == (1.0, True)  # rounding makes a few more zeros
    assert tenth.macs == plane(16, 8).macs  # what a Program counts


def test_every_method_has_its_kernels() -> None:
    def parts(choice: Choice, layer: str) -> list[Kernel]:
        steps = KernelPlan(residual_network()).steps(Policy(weights={layer: choice}))
        return [step.kernel for step in steps if step.layer == layer]

    dense = Kernel("convolve", 4, 4, 16, 16, 3, 3, 2, 2, 8, 8)
    assert parts(Codebook(entries=16), "b") == [dense._replace(encoding="codebook")]
    assert parts(Sparse(density=0.25), "b") == [dense._replace(encoding="sparse", density_percent=25)]
    blocks = Sparse(density=0.25, pattern="blocks", weight_bits=6)
    assert parts(blocks, "b") == [dense._replace(encoding="blocks", density_percent=25, weight_bits=6)]
    assert parts(LowRank(rank_ratio=0.5, weight_bits=4), "result") == [
        Kernel("convolve", 1, 1, 16, 5, 1, 1, 1, 1, 4, 8),
        Kernel("convolve", 1, 1, 5, 10, 1, 1, 1, 1, 4, 8),
    ]
    assert parts(Gated(active_ratio=0.5), "b") == [
        Kernel("pool_mean", 1, 1, 16, 16, 8, 8),
        Kernel("convolve", 1, 1, 16, 16, 1, 1, 1, 1, 8, 8),
        Kernel("rank", 1, 1, 16, 16),
        dense,
    ]


def test_fewer_or_fewer_different_weights_take_fewer_bytes() -> None:
    model = CostModel(residual_network(), table_for(dict.fromkeys(EXPECTED, 0.001)))

    def size(choice: Choice) -> int:
        return model.cost(Policy(weights={"b": choice})).size_bytes

    sizes = [size(choice) for choice in (Uniform(), Codebook(entries=32), Codebook(entries=4), Uniform(weight_bits=1))]
    assert sizes == sorted(sizes, reverse=True)
    assert size(Codebook(entries=16)) == size(Uniform(weight_bits=4)) + 16  # the table
    masks = 5  # a bit for each of 36 blocks
    assert size(Sparse(density=0.5, pattern="blocks")) == size(Uniform(weight_bits=4)) + masks
    assert size(Uniform(weight_bits=4, huffman=True)) < size(Uniform(weight_bits=4))
    assert size(Sparse(density=0.1)) < size(Sparse(density=0.3)) < size(Uniform())
