"""The order in which channels leave, and the repair of the weights that stay."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from automc.compression.prepare import Preparation
from automc.compression.prune import second_order
from automc.compression.reconstruct import repair
from automc.compression.removal import removal_orders
from automc.compression.statistics import collect, sample_positions
from automc.errors import NameNotFound
from automc.network.datasets import load_dataset
from automc.network.graph import Conv, Network
from automc.schema import Removal
from tests.networks import MEAN, STD, TINY_NETWORKS, TinyDepthwise, TinyPlain, TinyResidual, traced

PIXELS = load_dataset("digits").train.pixels[:120]


def statistics(network: Network):
    return collect(network, PIXELS, sample_positions(network, 0))


def orders(module: nn.Module, removal: Removal = "second_order") -> dict[str, np.ndarray]:
    network = traced(module)
    return removal_orders(removal, network, PIXELS, statistics(network).moments)


@pytest.mark.parametrize("removal", get_args(Removal))
@pytest.mark.parametrize("make", TINY_NETWORKS)
def test_every_slot_of_every_prunable_group_leaves_once(make, removal):
    network = traced(make())
    found = orders(make(), removal)
    assert set(found) == {group.name for group in network.groups if group.prunable}
    for group in network.groups:
        if group.prunable:
            assert sorted(found[group.name]) == list(range(group.slots))


@pytest.mark.parametrize("removal", get_args(Removal))
def test_an_order_is_the_same_every_time_and_that_of_a_preparation(removal):
    first, second = orders(TinyResidual(), removal), orders(TinyResidual(), removal)
    prepared = Preparation(traced(TinyResidual()), PIXELS, removal=removal).removal_order
    for name, order in first.items():
        assert order.tolist() == second[name].tolist() == prepared[name].tolist()


def test_the_orders_differ():
    found = {tuple(orders(TinyPlain(), removal)["conv2.0"].tolist()) for removal in get_args(Removal)}
    assert len(found) == len(get_args(Removal))


def test_an_unknown_order_is_refused_with_the_nearest():
    with pytest.raises(
        NameNotFound, match=r"no removal order 'tailor'\. Did you mean 'taylor'\? \(known: second_order, "
    ):
        orders(TinyPlain(), "tailor")  # type: ignore[arg-type]


@pytest.mark.parametrize("removal", ["second_order", "taylor"])
def test_a_channel_that_is_not_read_leaves_first(removal):
    module = TinyPlain()
    with torch.no_grad():
        module.conv2[0].weight[:, 3] = 0
    assert orders(module, removal)["conv1.0"][0] == 3


@pytest.mark.parametrize("removal", ["magnitude", "batch_norm"])
def test_a_channel_with_small_weights_leaves_first(removal):
    module = TinyPlain()
    with torch.no_grad():
        module.conv1[0].weight[3] *= 0.01
        module.conv2[0].weight[:, 3] *= 1000  # what reads it does not count
    assert orders(module, removal)["conv1.0"][0] == 3


def test_batch_norms_scale_is_found_although_it_was_folded():
    module = TinyPlain()
    scales = torch.tensor([0.9, 0.3, 2.5, 1.2, 0.5, 3.5, 0.7, 1.7])
    norm = module.conv1[1]
    with torch.no_grad():
        norm.weight.copy_(scales)
        written = module.conv1[0]((torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255 - MEAN[0]) / STD[0])
        norm.running_mean.copy_(written.mean((0, 2, 3)))
        norm.running_var.copy_(written.var((0, 2, 3)))
    assert orders(module, "batch_norm")["conv1.0"].tolist() == scales.argsort().tolist()


def test_taylors_loss_is_the_removed_channels_to_first_order():
    module = TinyPlain()
    network, tiny = traced(module), 1e-3
    images = (torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255 - MEAN[0]) / STD[0]

    def loss(share: float, channel: int) -> torch.Tensor:
        changed = TinyPlain().double()
        norm = changed.conv2[1]
        with torch.no_grad():
            for part in (norm.weight, norm.bias):
                part[channel] *= 1 - share
            logits = changed(images.double())
        return (logits - logits.mean(1, keepdim=True)).square().sum(1) / 2

    changes = [float((loss(tiny, channel) - loss(-tiny, channel)).abs().sum()) for channel in range(12)]
    found = removal_orders("taylor", network, PIXELS, statistics(network).moments)
    assert found["conv2.0"].tolist() == np.argsort(changes).tolist()


def test_of_two_equal_channels_one_leaves_first():
    module = TinyPlain()
    with torch.no_grad():
        for part in (module.conv1[0].weight, module.conv1[0].bias, *module.conv1[1].state_dict().values()):
            if part.ndim:
                part[5] = part[2]
        module.conv2[0].weight[:, (2, 5)] *= 4  # neither is small, only superfluous
    order = orders(module)["conv1.0"].tolist()
    assert order[0] in (2, 5)
    assert {2, 5} - {order[0]} <= set(order[3:])


def test_all_readers_of_a_coupled_group_count():
    module = TinyResidual()
    with torch.no_grad():
        module.same1[0].weight[:, 3] = 0
        module.padded1[0].weight[:, 6] = 0
    # Neither is free, since the other reader needs it; a channel that both ignore is.
    assert orders(module)["conv1.0"][0] not in (3, 6)
    with torch.no_grad():
        module.padded1[0].weight[:, 3] = 0
        module.same2[0].weight[3] = 0
    assert orders(module)["conv1.0"][0] == 3


def test_a_depthwise_layers_channels_are_judged_by_who_reads_them_behind_it():
    module = TinyDepthwise()
    with torch.no_grad():
        module.reduce[0].weight[:, 11] = 0
    assert orders(module)["expand.0"][0] == 11


def test_the_first_to_leave_is_the_cheapest_after_a_refit():
    network = traced(TinyPlain())
    moments = statistics(network).moments
    layer = network["conv2.0"]
    assert isinstance(layer, Conv)
    gram = moments["conv2.0"].gram
    weight = torch.tensor(layer.weight, dtype=torch.float64).reshape(1, 12, 72)
    errors = []
    for channel in range(8):
        kept = [column for column in range(72) if column // 9 != channel]
        target = weight @ gram @ weight.mT
        inside = gram[:, kept][:, :, kept]
        cross = gram[:, kept] @ weight.mT
        refitted = torch.linalg.lstsq(inside[0], cross[0]).solution
        errors.append(float(target.diagonal(dim1=1, dim2=2).sum() - (cross[0] * refitted).sum()))
    assert second_order(network, moments)["conv1.0"][0] == int(np.argmin(errors))


def test_repair_takes_over_the_work_of_a_dependent_input():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(500, 3))
    inputs[:, 2] = inputs[:, 0] - 2 * inputs[:, 1]
    gram = torch.tensor(inputs.T @ inputs / 500)[None]
    weight = torch.tensor([[[1.0, 1.0, 3.0]]], dtype=torch.float64)
    rows = gram[:, :2]
    repaired = repair(weight[:, :, :2], rows[:, :, :2], rows @ weight.mT)
    np.testing.assert_allclose(repaired.numpy(), [[[4.0, -5.0]]], atol=0.15)  # the ridge holds it back a little


def test_repair_leaves_alone_what_lacks_nothing():
    weight = torch.tensor(np.random.default_rng(0).normal(size=(2, 3, 4)))
    gram = torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    assert torch.equal(repair(weight, gram, gram @ weight.mT), weight)
