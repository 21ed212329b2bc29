"""From a dense network and a policy to a Program that computes nearly the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from automc.choices import Codebook, Uniform
from automc.compression.executor import Executor
from automc.compression.interpreter import interpret, interpret_all
from automc.compression.operations import Convolve, Select
from automc.compression.policy import Policy, uniform_policy
from automc.compression.prepare import Preparation
from automc.compression.program import Program
from automc.errors import DataError, PolicyError
from automc.network.datasets import load_dataset
from automc.network.forward import forward
from automc.network.graph import Network
from automc.network.training import normalise
from tests.networks import TINY_NETWORKS, TinyConcat, TinyDepthwise, TinyPlain, TinyResidual, randomise, traced

TRAIN = load_dataset("digits").train.pixels
CALIBRATION, HELD_OUT = TRAIN[:160], TRAIN[160:320]
FIDELITIES = ("program", "sequential")


def dense_logits(network: Network) -> np.ndarray:
    tensors = forward(network.layers, normalise(HELD_OUT, network.mean, network.std))
    return tensors[network.output.name].flatten(1).numpy()


def relative_error(program: Program, network: Network) -> float:
    """Root mean squared error of the logits, in standard deviations of the dense ones."""
    dense = dense_logits(network)
    return float(np.sqrt(np.square(Executor(program).run(HELD_OUT) - dense).mean() / dense.var()))


def convolution(program: Program, target: str) -> Convolve:
    (found,) = (operation for operation in program.operations if operation.target == target)
    assert isinstance(found, Convolve)
    return found


@pytest.fixture(scope="module", params=TINY_NETWORKS, ids=lambda make: make.__name__)
def preparation(request):
    return Preparation(traced(request.param()), CALIBRATION)


@pytest.fixture(scope="module")
def residual():
    return Preparation(traced(TinyResidual()), CALIBRATION)


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_eight_bits_are_nearly_the_dense_network(preparation, fidelity):
    network = preparation.network
    program = getattr(preparation, fidelity)(uniform_policy(network))
    assert relative_error(program, network) < 0.03
    assert program.macs == network.macs


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_fewer_bits_cost_more(preparation, fidelity):
    network = preparation.network
    errors = [
        relative_error(getattr(preparation, fidelity)(uniform_policy(network, 1.0, bits, bits)), network)
        for bits in (8, 4, 2)
    ]
    assert errors == sorted(errors)
    assert errors[2] > 3 * errors[0]


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("ratio", [0.75, 0.5, 0.01])
def test_pruned_networks_run_and_have_the_channels_that_were_asked_for(preparation, fidelity, ratio):
    network = preparation.network
    policy = uniform_policy(network, ratio, 4, 5)
    program = getattr(preparation, fidelity)(policy)
    assert np.array_equal(interpret(program, HELD_OUT[:20]), Executor(program).run(HELD_OUT[:20]))
    for group in network.groups:
        if group.prunable:
            for name in group.members:
                total = {conv: add for add, conv in network.fused_sums.items()}.get(name, name)
                assert convolution(program, total).outputs == policy.kept_count(group.name, group.slots)
    assert program.macs < network.macs


def test_sequential_repairs_more_than_independent(residual):
    network = residual.network
    inside = Policy(keep_ratio={"same1.0": 0.5, "padded1.0": 0.5, "projected1.0": 0.5})
    independent, sequential = (
        relative_error(program, network) for program in (residual.program(inside), residual.sequential(inside))
    )
    assert sequential < 0.8 * independent


def test_superfluous_channels_leave_without_a_trace():
    module = TinyPlain()
    with torch.no_grad():  # the second half of the channels is the first half again
        for part in (module.conv1[0].weight, module.conv1[0].bias, *module.conv1[1].state_dict().values()):
            if part.ndim:
                part[4:] = part[:4]
    network = traced(module)
    prepared = Preparation(network, CALIBRATION)
    policy = Policy(keep_ratio={"conv1.0": 0.5})
    for program in (prepared.program(policy), prepared.sequential(policy)):
        assert relative_error(program, network) < 0.04


def test_independent_preparation_slices_rows_and_shares_columns(residual):
    network = residual.network
    whole = residual.program(uniform_policy(network))
    pruned = residual.program(Policy(keep_ratio={"same1.0": 0.5}))
    kept = np.sort(residual.removal_order["same1.0"][4:])
    assert np.array_equal(convolution(pruned, "same1.0").weight, convolution(whole, "same1.0").weight[kept])
    assert convolution(pruned, "add").weight.shape == (8, 4, 3, 3)
    assert np.array_equal(convolution(pruned, "add_2").weight, convolution(whole, "add_2").weight)


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_equal_inputs_give_equal_programs(fidelity):
    network = traced(TinyConcat())
    policy = uniform_policy(network, 0.6, 4, 4)
    first, second = (getattr(Preparation(network, CALIBRATION, seed=3), fidelity)(policy) for _ in range(2))
    assert first.fingerprint == second.fingerprint


def test_what_was_prepared_before_does_not_matter(residual):
    policy = uniform_policy(residual.network, 0.5, 4, 4)
    fresh = Preparation(residual.network, CALIBRATION).program(policy)
    residual.program(uniform_policy(residual.network, 0.8, 3, 5))
    residual.sequential(policy)
    assert residual.program(policy).fingerprint == fresh.fingerprint


def test_bits_are_those_of_the_policy(residual):
    policy = Policy(weights={"same1.0": Uniform(weight_bits=3)}, activation_bits={"input": 6, "add": 4})
    program = residual.program(policy)
    assert convolution(program, "same1.0").weight_bits == 3
    assert np.abs(convolution(program, "same1.0").weight).max() <= 3
    bits = {name: tensor.bits for name, tensor in program.tensors.items()}
    assert bits.pop("input") == 6
    assert bits.pop("add") == 4
    moved = [operation.target for operation in program.operations if isinstance(operation, Select)]
    assert [bits.pop(name) for name in moved] == [4]  # what only moves values is stored as its source is
    assert set(bits.values()) == {8}


def test_relu6_is_an_upper_clamp():
    network = traced(TinyDepthwise())
    program = Preparation(network, CALIBRATION).program(uniform_policy(network))
    expand = convolution(program, "expand.0")
    target = program.tensors["expand.0"]
    assert expand.low == target.zero_point == 0
    assert expand.high == min(255, round(6 / target.scale))
    assert interpret_all(program, HELD_OUT)["expand.0"].max() <= expand.high


def test_a_sum_without_activation_keeps_its_negative_values():
    network = traced(TinyDepthwise())
    program = Preparation(network, CALIBRATION).program(uniform_policy(network))
    total = program.tensors["add"]
    assert 0 < total.zero_point < 255
    assert convolution(program, "add").low == 0
    assert interpret_all(program, HELD_OUT)["add"].min() < total.zero_point


def test_a_shortcut_from_a_removed_channel_carries_zeros(residual):
    program = residual.program(Policy(keep_ratio={"conv1.0": 0.5}))
    (select,) = (operation for operation in program.operations if isinstance(operation, Select))
    kept = np.sort(residual.removal_order["conv1.0"][4:]).tolist()
    places = [kept.index(channel) if channel in kept else -1 for channel in range(8)]
    assert select.index == (-1, -1, *places, -1, -1)


def _dead(module: TinyPlain) -> None:
    module.conv2[0].weight[1] = 0
    module.conv2[1].bias[2] = 3.0
    module.conv2[0].weight[2] *= 1e-9


def _silent(module: TinyPlain) -> None:
    module.conv1[1].weight[:] = 0
    module.conv1[1].bias[:] = -1


@pytest.mark.parametrize("spoil", [_dead, _silent])
@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("bits", [2, 8])
def test_channels_without_weights_or_values_still_make_a_program(spoil, fidelity, bits):
    module = TinyPlain()
    with torch.no_grad():
        spoil(module)
    network = traced(module)
    program = getattr(Preparation(network, CALIBRATION), fidelity)(uniform_policy(network, 1.0, bits, bits))
    logits = Executor(program).run(HELD_OUT)
    assert np.isfinite(logits).all()
    if spoil is _silent:  # then every image gives the same answer, and that is reproduced
        assert np.abs(logits - dense_logits(network)).max() < 0.1
    elif bits == 8:
        assert relative_error(program, network) < 0.03


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("choice", [Uniform(weight_bits=1), Uniform(weight_bits=4), Codebook(entries=4)])
def test_a_channel_without_weights_writes_its_bias_whether_or_not_a_code_is_zero(choice, fidelity):
    module = nn.Sequential(nn.Conv2d(1, 128, 3), nn.ReLU(), nn.Conv2d(128, 4, 3), nn.Flatten(), nn.Linear(64, 10))
    randomise(module, 0)
    with torch.no_grad():
        module[2].weight[1], module[2].bias[1] = 0, 0.5
    program = getattr(Preparation(traced(module), CALIBRATION[:16]), fidelity)(Policy(weights={"2": choice}))
    target = program.tensors["2"]
    written = interpret_all(program, HELD_OUT[:16])["2"][..., 1]
    assert (written == round(0.5 / target.scale) + target.zero_point).all()


def test_one_image_is_enough_and_none_is_refused():
    network = traced(TinyPlain())
    assert Preparation(network, CALIBRATION[:1]).sequential(uniform_policy(network, 0.5)).outputs == 10
    with pytest.raises(DataError, match="at least one image"):
        Preparation(network, CALIBRATION[:0])


@pytest.mark.parametrize("pixels", [CALIBRATION[:, :4], CALIBRATION.astype(np.float32), CALIBRATION[..., 0]])
def test_images_that_do_not_fit_are_refused(pixels):
    with pytest.raises(DataError, match="must be n x 8 x 8 x 1 of uint8"):
        Preparation(traced(TinyPlain()), pixels)


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_a_policy_for_another_network_is_refused(residual, fidelity):
    with pytest.raises(PolicyError, match="has no 'nowhere'"):
        getattr(residual, fidelity)(Policy(weights={"nowhere": Uniform()}))


class _Split(nn.Module):
    """Half of the channels take one way, half another, so that a group can lose all that one way carries."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.left, self.right = nn.Conv2d(1, 4, 3), nn.Conv2d(2, 4, 1), nn.Conv2d(2, 4, 1)
        self.linear = nn.Linear(8, 10)
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = torch.relu(self.first(x)).chunk(2, 1)
        return self.linear(torch.cat([torch.relu(self.left(left)), torch.relu(self.right(right))], 1).mean((2, 3)))


def test_a_tensor_cannot_lose_its_last_channel():
    network = traced(_Split())
    with pytest.raises(PolicyError, match=r"no channel of .* would remain"):
        Preparation(network, CALIBRATION).program(Policy(keep_ratio={"first": 0.25}))


def test_calibration_leaves_the_global_generators_alone():
    network = traced(TinyPlain())
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    Preparation(network, CALIBRATION).sequential(uniform_policy(network, 0.5))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.random.get_state()[1].tolist() == numpy_state
