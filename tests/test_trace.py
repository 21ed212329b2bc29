"""Tracing: the layers compute what the module computes, and what has no form is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automc.network.describe import describe
from automc.network.graph import Concat, Conv, Gather, Pool
from automc.network.zoo import build_network
from tests.networks import (
    TINY_NETWORKS,
    Custom,
    TinyConcat,
    TinyDepthwise,
    TinyPlain,
    TinyResidual,
    assert_same,
    head,
    parts,
    randomise,
    traced,
)


class Standardised(nn.Conv2d):
    """A convolution whose weights are computed from its parameters (weight standardisation)."""

    def forward(self, x: Tensor) -> Tensor:
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, centred / centred.std((1, 2, 3), keepdim=True), self.bias, padding=1)


def shuffle(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.size()
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def preactivation(self: nn.Module, x: Tensor) -> Tensor:
    x = self.stem(x)
    return head(self, x + self.conv(F.relu(self.norm(x))))


def shuffled(self: nn.Module, x: Tensor) -> Tensor:
    return head(self, F.relu(self.conv(shuffle(F.relu(self.stem(x)), 2))))


def sums(self: nn.Module, x: Tensor) -> Tensor:
    x = self.stem(x)
    return head(self, sum([self.one(x), self.two(x), x]))


def in_place(self: nn.Module, x: Tensor) -> Tensor:
    y = F.relu(self.stem(x), inplace=True)
    z = self.one(y)
    z += y
    return head(self, F.hardtanh_(z, 0.0, 6.0))


def twice(self: nn.Module, x: Tensor) -> Tensor:
    return head(self, self.one(F.relu(self.one(self.stem(x)))))


GRAPHS: dict[str, Custom] = {
    "standalone batch norm": Custom(
        parts(8, norm=nn.BatchNorm2d(8), conv=nn.Conv2d(8, 8, 3, padding=1)), preactivation
    ),
    "activation and batch norm behind a concatenation": Custom(
        parts(16, one=nn.Conv2d(8, 8, 1), norm=nn.BatchNorm2d(16)),
        lambda self, x: head(self, F.relu(self.norm(torch.cat([F.relu(x := self.stem(x)), self.one(x)], 1)))),
    ),
    "activation into both sides of a concatenation": Custom(
        parts(12, one=nn.Conv2d(8, 8, 1), two=nn.Conv2d(8, 4, 3, padding=1)),
        lambda self, x: head(self, torch.cat([self.one(x := self.stem(x)), self.two(x)], 1).relu()),
    ),
    "shuffle by view and transpose, grouped convolution": Custom(
        parts(8, conv=nn.Conv2d(8, 8, 3, padding=1, groups=2)), shuffled
    ),
    "shuffle by index": Custom(
        parts(8, conv=nn.Conv2d(8, 8, 1)),
        lambda self, x: head(self, self.conv(self.stem(x)[:, [3, 1, 0, 2, 7, 6, 4, 5]])),
    ),
    "split": Custom(
        parts(8, conv=nn.Conv2d(3, 8, 1)),
        lambda self, x: head(self, self.conv(F.relu(torch.split(self.stem(x), [5, 3], 1)[1]))),
    ),
    "slice in steps, pad on one side": Custom(
        parts(11, conv=nn.Conv2d(8, 11, 3, 3, padding=1)),
        lambda self, x: head(self, self.conv(x := F.relu(self.stem(x))) + F.pad(x, (0, 0, 0, 0, 0, 3))[:, :, ::3, ::3]),
    ),
    "stride, dilation and padding that differ by axis": Custom(
        parts(8, conv=nn.Conv2d(8, 8, (3, 5), (1, 2), (2, 1), (2, 1))),
        lambda self, x: head(self, self.conv(self.stem(x))),
    ),
    "padding by name": Custom(
        parts(8, same=nn.Conv2d(8, 8, (3, 1), padding="same"), valid=nn.Conv2d(8, 8, 3, padding="valid", bias=False)),
        lambda self, x: head(self, self.valid(self.same(self.stem(x)))),
    ),
    "flattened in another order": Custom(
        parts(512), lambda self, x: self.linear(self.stem(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1))
    ),
    "part of a flattened map": Custom(parts(100), lambda self, x: self.linear(self.stem(x).flatten(1)[:, 7:107])),
    "two dense layers with a batch norm": Custom(
        parts(12, wide=nn.Linear(128, 12), norm=nn.BatchNorm1d(12)),
        lambda self, x: self.linear(F.relu(self.norm(self.wide(F.max_pool2d(F.relu(self.stem(x)), 2).flatten(1))))),
    ),
    "activation behind a maximum": Custom(
        parts(8), lambda self, x: head(self, F.relu6(F.max_pool2d(self.stem(x), 3, 2, 1)))
    ),
    "average with padding, smaller adaptive average": Custom(
        parts(32, mean=nn.AvgPool2d(3, 1, 1), pool=nn.AdaptiveAvgPool2d((2, 2))),
        lambda self, x: self.linear(self.pool(self.mean(self.stem(x))).flatten(1)),
    ),
    "convolution as the last layer": Custom(
        {"stem": nn.Conv2d(1, 8, 3, 2), "last": nn.Conv2d(8, 10, 1)},
        lambda self, x: self.last(self.stem(x).mean((2, 3), keepdim=True)).flatten(1),
    ),
    "sum of a list": Custom(parts(8, one=nn.Conv2d(8, 8, 1), two=nn.Conv2d(8, 8, 1)), sums),
    "operations in place": Custom(parts(8, one=nn.Conv2d(8, 8, 1)), in_place),
    "one module called twice": Custom(parts(8, one=nn.Conv2d(8, 8, 1)), twice),
    "batch norm of the image": Custom(
        parts(8, norm=nn.BatchNorm2d(1)), lambda self, x: head(self, F.relu(self.stem(self.norm(x))))
    ),
    "computed weights": Custom(
        parts(8, one=Standardised(8, 8, 3)), lambda self, x: head(self, F.relu(self.one(self.stem(x))))
    ),
    "constants": Custom(
        parts(8, gain=nn.Conv2d(8, 8, 1)),
        lambda self, x: head(self, 1 - (2 * self.stem(x) - torch.linspace(0, 1, 8).view(8, 1, 1)) / 4 + 3),
    ),
    "hard sigmoid by hand": Custom(
        parts(8), lambda self, x: head(self, (y := self.stem(x)) * (F.relu6(y.mean((2, 3), True) + 3) / 6))
    ),
    "difference": Custom(
        parts(8, one=nn.Conv2d(8, 8, 1)), lambda self, x: head(self, F.relu(self.stem(x)) - self.one(self.stem(x)))
    ),
    "multiples": Custom(
        parts(8, one=nn.Conv2d(8, 8, 1)),
        lambda self, x: head(self, torch.sub(y := self.stem(x), torch.add(self.one(y), y, alpha=2), alpha=3)),
    ),
    "curves": Custom(
        parts(8, one=nn.Conv2d(8, 8, 1), gelu=nn.GELU(), silu=nn.SiLU(), tanh=nn.Tanh()),
        lambda self, x: head(self, self.tanh(self.one(F.hardswish(self.silu(self.gelu(self.stem(x)))))).sigmoid()),
    ),
    "gains of dense layers, expanded": Custom(
        parts(8, down=nn.Linear(8, 2), up=nn.Linear(2, 8), gate=nn.Hardsigmoid()),
        lambda self, x: head(
            self,
            (y := self.stem(x))
            * self.gate(self.up(F.relu(self.down(y.mean((2, 3)))))).view(x.shape[0], 8, 1, 1).expand_as(y),
        ),
    ),
    "pixel shuffle": Custom(parts(2, up=nn.PixelShuffle(2)), lambda self, x: head(self, F.relu(self.up(self.stem(x))))),
    "a map as result": Custom(
        {"stem": nn.Conv2d(1, 4, 3, padding=1)}, lambda self, x: F.pixel_shuffle(self.stem(x), 2)
    ),
    "difference from the image as result": Custom(
        {"stem": nn.Conv2d(1, 4, 3, padding=1), "last": nn.Conv2d(4, 1, 1)},
        lambda self, x: x - self.last(F.relu(self.stem(x))),
    ),
    "means as result": Custom({"stem": nn.Conv2d(1, 4, 3, padding=1)}, lambda self, x: self.stem(x).mean((2, 3))),
    "probabilities as result": Custom(parts(8), lambda self, x: head(self, self.stem(x)).sigmoid()),
    "clamps": Custom(
        parts(8, one=nn.Conv2d(8, 8, 1), six=nn.Hardtanh(0, 6)),
        lambda self, x: head(self, self.six(self.one(torch.clamp(self.stem(x), min=0)))),
    ),
}
MODULES: dict[str, nn.Module] = {
    **GRAPHS,
    **{f"{kind.__name__}, seed {seed}": kind(seed) for kind in TINY_NETWORKS for seed in (0, 1)},
}


@pytest.mark.parametrize("name", MODULES)
def test_layers_compute_what_the_module_computes(name: str) -> None:
    assert_same(traced(MODULES[name]), MODULES[name])


@pytest.mark.parametrize(("name", "macs"), [("resnet8", 12.5), ("resnet20", 40.55), ("plain20", 40.55)])
def test_reference_networks(name: str, macs: float) -> None:
    module = build_network(name, 10, 3)
    randomise(module, 3)
    network = traced(module, (3, 32, 32))
    assert network.macs / 1e6 == pytest.approx(macs, rel=0.01)
    assert_same(network, module)


def test_the_module_is_left_as_it_was() -> None:
    module = TinyResidual(0).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.random.get_rng_state()
    traced(module)
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


def test_names_are_those_of_the_modules_and_sums_belong_to_convolutions() -> None:
    network = traced(build_network("resnet20", 10, 3), (3, 32, 32))
    names = [layer.name for layer in network.layers]
    assert names[:5] == ["input", "conv1", "layer1.0.conv1", "layer1.0.conv2", "layer1.0.add"]
    assert "layer2.0.gather" in names
    assert names[-2:] == ["mean_pool", "linear"]
    assert len(set(names)) == len(names)
    assert len(network.fused_sums) == 9


def test_slice_and_pad_are_one_gather() -> None:
    gathers = [layer for layer in traced(TinyResidual()).layers if isinstance(layer, Gather)]
    assert [(layer.index, layer.stride) for layer in gathers] == [((-1, -1, 0, 1, 2, 3, 4, 5, 6, 7, -1, -1), 2)]


def test_batch_norms_and_activations_are_folded_away() -> None:
    network = traced(TinyDepthwise())
    kinds = {type(layer).__name__ for layer in network.layers}
    assert kinds == {"Input", "Conv", "Add", "Pool"}
    assert network["stem.0"].activation == "relu6"
    assert network["reduce.0"].activation == "none"
    assert network.notes == ()


def test_activation_behind_a_concatenation_goes_into_its_operands() -> None:
    network = traced(GRAPHS["activation into both sides of a concatenation"])
    assert {layer.name: layer.activation for layer in network.convs} == {
        "stem": "none", "one": "relu", "two": "relu", "linear": "none",
    }  # fmt: skip


def test_batch_norm_that_cannot_be_folded_is_noted() -> None:
    network = traced(GRAPHS["standalone batch norm"])
    norm = network["norm"]
    assert isinstance(norm, Conv)
    assert norm.is_depthwise
    assert norm.activation == "relu"
    assert len(network.notes) == 1
    assert network.notes[0].startswith("norm: ")


def test_shared_weights_are_noted() -> None:
    network = traced(GRAPHS["one module called twice"])
    assert [layer.name for layer in network.convs] == ["stem", "one", "one_2", "linear"]
    assert network.notes == ("one is called 2 times; each call becomes a layer with its own copy of the weights",)


def test_dense_layer_over_a_map_has_the_kernel_of_the_map() -> None:
    module = TinyPlain()
    linear = traced(module)["linear"]
    assert isinstance(linear, Conv)
    assert linear.kernel == (2, 2)
    assert linear.is_dense
    np.testing.assert_array_equal(linear.weight.reshape(10, -1), module.linear.weight.detach().numpy())


def test_unused_layers_are_left_out() -> None:
    module = Custom(parts(8, one=nn.Conv2d(8, 8, 1)), lambda self, x: (self.one(x := self.stem(x)), head(self, x))[1])
    assert [layer.name for layer in traced(module).convs] == ["stem", "linear"]


def test_pool_over_the_whole_map() -> None:
    pools = [layer for layer in traced(TinyConcat()).layers if isinstance(layer, Pool)]
    assert [(pool.kind, pool.kernel) for pool in pools] == [("mean", (2, 2)), ("mean", (4, 4))]
    assert sum(isinstance(layer, Concat) for layer in traced(TinyConcat()).layers) == 2


def test_description_names_groups_and_reasons() -> None:
    text = describe(traced(TinyResidual()))
    assert "  conv1.0, same2.0: 8 channels, removed together\n" in text
    assert "  same1.0: 8 channels, alone\n" in text
    assert "  linear: all channels stay; its outputs are the network's result" in text
    assert any(line.split()[:3] == ["padded1.0", "convolution,", "relu"] for line in text.splitlines())


def test_description_names_curves_gains_and_shuffles() -> None:
    lines = describe(traced(GRAPHS["gains of dense layers, expanded"])).splitlines()
    kinds = {line.split("  ")[0]: line for line in lines}
    assert "  hardsigmoid  " in kinds["gate"]
    assert "  gains  " in kinds["scale"]
    assert any("  pixel shuffle  " in line for line in describe(traced(GRAPHS["pixel shuffle"])).splitlines())
