"""The energy model, term by term, on numbers that can be worked out by hand."""

from dataclasses import replace

import pytest

from automc.choices import Uniform
from automc.compression.policy import Policy
from automc.cost.energy import Energy, EnergyCoefficients, kernel_energy, static_energy
from automc.cost.kernels import Kernel
from automc.cost.model import CostModel
from automc.errors import TableError
from tests.cost_examples import kernels_of, residual_network, table_for

ONE = EnergyCoefficients(1e9, 1e9, 1e9, 1e9, 1e3, "made up: one millijoule an event, one watt")
CONV = Kernel("convolve", 2, 3, 4, 5, 3, 3, 2, 2, 4, 8, True)


def test_every_term_of_a_convolution() -> None:
    energy = kernel_energy(CONV, times=1, weight_bytes=90, coefficients=ONE)
    macs, written, read = 2 * 3 * 4 * 5 * 9, 2 * 3 * 5, 2 * 3 * 4 * 4
    assert energy.multiply_mj == pytest.approx(macs / 2)  # 4 by 8 bits is half of 8 by 8
    assert energy.add_mj == pytest.approx(macs + written)
    assert energy.near_memory_mj == pytest.approx(macs / 2 + read + 2 * written)
    assert energy.far_memory_mj == pytest.approx(read + 2 * written + 90)
    assert energy.static_mj == energy.instruction_mj == 0


@pytest.mark.parametrize(
    ("kernel", "pixels"),
    [
        (Kernel("convolve", 1, 1, 4, 10, 4, 4, 1, 1, 8, 8), 16),  # a dense layer over a map
        (Kernel("pool_mean", 1, 1, 4, 4, 6, 5), 30),  # of a whole map
        (Kernel("convolve", 4, 4, 4, 4, 1, 1, 2, 2, 8, 8), 16),  # leaves out three of four
        (Kernel("select", 4, 3, 4, 4, 1, 1, 2, 2), 12),
        (Kernel("convolve", 4, 4, 4, 4, 3, 3, 2, 1, 8, 8), 32),
        (Kernel("convolve", 6, 6, 4, 4, 3, 3, 1, 1, 8, 8, dilation_height=2, dilation_width=2), 36),
        (Kernel("pool_max", 2, 2, 4, 4, 2, 2, 3, 3), 16),
        (Kernel("shuffle", 8, 8, 12, 3, 2, 2), 16),
    ],
)
def test_every_element_that_is_read_moves_once(kernel: Kernel, pixels: int) -> None:
    assert kernel.source_pixels == pixels
    written = kernel.height * kernel.width * kernel.outputs
    moved = kernel_energy(kernel, 1, 90, ONE).far_memory_mj
    assert moved == pytest.approx(90 + written + pixels * kernel.inputs)


def test_instructions_count_for_every_product_or_element() -> None:
    coefficients = replace(ONE, instruction_pj=1e9, instructions_per_mac=0.25)
    assert kernel_energy(CONV, 1, 90, coefficients).instruction_mj == pytest.approx(CONV.macs / 4)
    assert kernel_energy(Kernel("sum", 2, 2, 3, 3), 1, 0, coefficients).instruction_mj == pytest.approx(3)


def test_the_breakdown_prints_as_shares() -> None:
    assert str(Energy(multiply_mj=1.0, near_memory_mj=3.0)) == "4 mJ (multiply 25%, near memory 75%)"


def test_a_sum_multiplies_nothing_and_adds_its_elements() -> None:
    energy = kernel_energy(Kernel("sum", 2, 2, 3, 3), times=1, weight_bytes=0, coefficients=ONE)
    assert (energy.multiply_mj, energy.add_mj, energy.far_memory_mj) == (0, 12, 36)


def test_static_power_flows_for_the_whole_inference() -> None:
    assert static_energy(250.0, ONE).total_mj == pytest.approx(250.0)


def test_fewer_bits_take_less_energy_at_equal_latency() -> None:
    network = residual_network()
    model = CostModel(network, table_for(dict.fromkeys(kernels_of(network, Policy()), 0.01)))
    four = Policy(weights={layer.name: Uniform(weight_bits=4) for layer in network.convs})
    assert model.energy(four).static_mj == model.energy(Policy()).static_mj
    assert model.energy(four).multiply_mj == pytest.approx(model.energy(Policy()).multiply_mj / 2)
    assert model.cost(four).energy_mj < model.cost(Policy()).energy_mj  # type: ignore[operator]


def test_without_coefficients_there_is_no_energy() -> None:
    network = residual_network()
    model = CostModel(network, table_for(dict.fromkeys(kernels_of(network, Policy()), 0.01), energy=None))
    assert model.cost(Policy()).energy_mj is None
    with pytest.raises(TableError, match="states no energy coefficients"):
        model.energy(Policy())
