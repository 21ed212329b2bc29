"""Networks by name, and weights files that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from automc.errors import NameNotFound, WeightsError
from automc.network import zoo
from automc.network.forward import forward
from automc.network.zoo import build_network, load_weights, network_names, register_network
from tests.networks import TinyPlain, randomise, traced

State = dict[str, Tensor]


def saved(path: Path, change: Callable[[State], object] = lambda state: None) -> Path:
    """A weights file of `TinyPlain(1)`, its content changed."""
    state = {name: value.clone() for name, value in TinyPlain(1).state_dict().items()}
    change(state)
    save_file(state, path)
    return path


def fill(name: str, value: float) -> Callable[[State], object]:
    return lambda state: state[name].view(-1)[:1].fill_(value)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_are_loaded(tmp_path: Path, prefix: str) -> None:
    module = TinyPlain(2)
    expected = TinyPlain(1).state_dict()
    counters = [name for name in expected if name.endswith("num_batches_tracked")]
    save_file({prefix + name: value for name, value in expected.items() if name not in counters}, tmp_path / "w")
    load_weights(module, tmp_path / "w")
    assert all(torch.equal(value, expected[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_are_loaded_into_a_child_called_module(tmp_path: Path, prefix: str) -> None:
    wrapper = nn.ModuleDict({"module": TinyPlain(2)})
    expected = nn.ModuleDict({"module": TinyPlain(1)}).state_dict()
    save_file({prefix + name: value for name, value in expected.items()}, tmp_path / "w")
    load_weights(wrapper, tmp_path / "w")
    assert all(torch.equal(value, expected[name]) for name, value in wrapper.state_dict().items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("linear.bias"), r"missing in the file: linear\.bias$"),
        (lambda state: state.update(extra=torch.zeros(1)), r"not in the network: extra$"),
        (lambda state: state.update({"linear.weight": torch.zeros(10, 47)}), r"of another shape: linear\.weight$"),
        (lambda state: [state.pop(f"conv1.1.{name}") for name in ("weight", "bias", "running_mean", "running_var")],
         r"missing in the file: conv1\.1\.bias, conv1\.1\.running_mean, conv1\.1\.running_var and 1 more$"),
        (fill("conv2.0.weight", float("nan")), r"conv2\.0\.weight holds values that are not finite"),
        (fill("conv2.1.running_var", float("inf")), r"conv2\.1\.running_var holds values that are not finite"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit(tmp_path: Path, change: Callable[[State], object], words: str) -> None:
    module = TinyPlain(2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(WeightsError, match=words):
        load_weights(module, saved(tmp_path / "weights.safetensors", change))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_weights_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot read weights from .*absent"):
        load_weights(TinyPlain(), tmp_path / "absent.safetensors")
    (tmp_path / "text").write_text("these are no weights")
    with pytest.raises(WeightsError, match=r"cannot read weights from .*text"):
        load_weights(TinyPlain(), tmp_path / "text")
    whole = saved(tmp_path / "whole").read_bytes()
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"cannot read weights from .*half"):
        load_weights(TinyPlain(), tmp_path / "half")
    with pytest.raises(WeightsError, match="cannot read weights from"):
        load_weights(TinyPlain(), tmp_path)


def test_networks_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_REGISTRY", dict(zoo._REGISTRY))
    with pytest.raises(NameNotFound, match="Did you mean 'plain20'"):
        build_network("plain2", 10, 3)
    register_network("mine", lambda classes, channels: nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, classes)))
    assert "mine" in network_names()
    network = build_network("mine", 7, 1)
    assert not network.training
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("lenet5", 431_080),  # Han et al. 2016, table 2: 431 K
        ("densenet40_k12", 1_019_722),  # Huang et al. 2017, table 2: 1.0 M
        ("mobilenetv2_100_224", 3_504_872),  # torchvision's
    ],
)
def test_networks_have_the_papers_sizes(name: str, parameters: int) -> None:
    entry = zoo.zoo()[name]
    network = build_network(name, entry.classes, entry.shape[0])
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


# A second; smaller networks of the same families are traced always.
_LARGE = {"vgg16_bn", "densenet40_k12", "mobilenetv1_100", "mobilenetv2_100", "shufflenetv2_100", "shufflenetv1_g3"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in _LARGE else ()) for name in zoo.zoo()]
)
def test_every_network_of_the_zoo_is_traced_and_answers_alike(name: str) -> None:
    entry = zoo.zoo()[name]
    channels, *size = entry.shape
    shape = (channels, *(size if name == "ds_cnn" else (min(length, 32) for length in size)))
    with torch.random.fork_rng(devices=[]):
        module = build_network(name, entry.classes, channels)
    randomise(module, 0)
    network = traced(module.eval(), shape)
    images = torch.randn((2, *shape), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = module(images).flatten(1)
        found = forward(network.layers, images)[network.output.name].flatten(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert sum(group.prunable for group in network.groups) > 0
