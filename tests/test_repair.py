"""What repairs a compressed layer, one thing at a time: each is switched off, and the network gets worse."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pytest

from automc.choices import Gated, Uniform
from automc.compression import prepare
from automc.compression.coded import Coded
from automc.compression.delivery import Batches
from automc.compression.executor import Executor
from automc.compression.interpreter import interpret_all
from automc.compression.policy import Policy
from automc.compression.prepare import Preparation
from automc.compression.program import Program
from automc.compression.statistics import BATCH
from automc.network.datasets import load_dataset
from automc.network.forward import forward
from automc.network.graph import Conv
from automc.network.training import normalise
from tests.networks import TinyPlain, TinyResidual, traced

PIXELS = load_dataset("digits").train.pixels[:BATCH]  # all in one batch


@pytest.fixture(scope="module")
def residual() -> Preparation:
    return Preparation(traced(TinyResidual()), PIXELS)


@pytest.fixture(scope="module")
def plain() -> Preparation:
    return Preparation(traced(TinyPlain()), PIXELS)


def fresh(preparation: Preparation) -> Preparation:
    """The same, without what is remembered of the last policy."""
    return Preparation(preparation.network, PIXELS)


def dense(preparation: Preparation, tensor: str) -> np.ndarray:
    """What the dense network writes for the calibration images."""
    network = preparation.network
    return forward(network.layers, normalise(PIXELS, network.mean, network.std))[tensor].numpy()


def error(preparation: Preparation, program: Program, tensor: str) -> float:
    """The mean squared error of what the program writes for the calibration images."""
    stored = program.tensors[tensor]
    found = (interpret_all(program, PIXELS)[tensor].astype(np.float64) - stored.zero_point) * stored.scale
    wanted = dense(preparation, tensor)
    return float(
        np.square(found.reshape(len(PIXELS), stored.height, stored.width, -1).transpose(0, 3, 1, 2) - wanted).mean()
    )


def result_error(preparation: Preparation, program: Program) -> float:
    wanted = dense(preparation, preparation.network.output.name).reshape(len(PIXELS), -1)
    return float(np.square(Executor(program).run(PIXELS) - wanted).mean())


def test_a_convolution_makes_up_for_the_error_of_what_is_added_to_it(
    residual: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without that it is repaired towards what it alone computes in the dense network."""
    policy = Policy(activation_bits={"conv1.0": 2})
    corrected = error(residual, fresh(residual).sequential(policy), "add")
    sequential = Preparation._sequential

    def uncorrected(self: Preparation, layer: Conv, plan: prepare._Plan, delivered: Mapping[str, Batches]) -> Coded:
        other = plan.lowering.other_operand(layer)
        if other is None:
            return sequential(self, layer, plan, delivered)
        operand = SimpleNamespace(name="dense operand", scale=1.0)
        values = forward(self.network.layers, normalise(PIXELS, self.network.mean, self.network.std))[other.name]
        with monkeypatch.context() as patched:
            patched.setattr(plan.lowering, "other_operand", lambda layer: operand)
            return sequential(self, layer, plan, {**delivered, operand.name: [values]})

    monkeypatch.setattr(Preparation, "_sequential", uncorrected)
    assert corrected < 0.9 * error(residual, fresh(residual).sequential(policy), "add")


@pytest.mark.parametrize("fidelity", ["program", "sequential"])
def test_what_remains_takes_over_the_work_of_what_was_removed(
    plain: Preparation, monkeypatch: pytest.MonkeyPatch, fidelity: str
) -> None:
    policy = Policy(keep_ratio={"conv1.0": 0.5})
    repaired = result_error(plain, getattr(fresh(plain), fidelity)(policy))
    monkeypatch.setattr(prepare, "repair", lambda weight, gram, cross: weight)
    assert repaired < 0.7 * result_error(plain, getattr(fresh(plain), fidelity)(policy))


def test_in_sequence_a_layer_is_refitted_to_what_the_layer_before_delivers(
    plain: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is removed, so that only the errors of the layer before are there to be repaired."""
    policy = Policy(weights={"conv1.0": Uniform(weight_bits=2)})
    refitted = result_error(plain, fresh(plain).sequential(policy))
    monkeypatch.setattr(prepare, "repair", lambda weight, gram, cross: weight)
    assert refitted < 0.8 * result_error(plain, fresh(plain).sequential(policy))


@pytest.mark.parametrize(("fidelity", "inner"), [("program", "_independent"), ("sequential", "_sequential")])
def test_biases_keep_the_mean_of_what_a_layer_writes(
    plain: Preparation, monkeypatch: pytest.MonkeyPatch, fidelity: str, inner: str
) -> None:
    policy = Policy(weights={layer.name: Uniform(weight_bits=2) for layer in plain.network.convs})
    corrected = result_error(plain, getattr(fresh(plain), fidelity)(policy))
    original = getattr(Preparation, inner)

    def with_its_own_bias(self: Preparation, layer: Conv, *others: object) -> Coded:
        coded = original(self, layer, *others)
        return dataclasses.replace(
            coded, weights=dataclasses.replace(coded.weights, bias=layer.bias.astype(np.float64))
        )

    monkeypatch.setattr(Preparation, inner, with_its_own_bias)
    assert corrected < 0.8 * result_error(plain, getattr(fresh(plain), fidelity)(policy))


def test_in_sequence_a_gate_is_fitted_to_what_is_delivered(
    residual: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"conv1.0": Uniform(weight_bits=1), "same1.0": Gated(active_ratio=0.5)}
    policy = Policy(keep_ratio={"conv1.0": 0.5}, weights=weights)
    magnitudes = np.abs(dense(residual, "same1.0")).mean((2, 3))

    def misjudged() -> float:
        """How far the magnitudes that the gate expects are from the dense network's."""
        program = fresh(residual).sequential(policy)
        tensor = program.tensors["same1.0.saliency"]
        stored = interpret_all(program, PIXELS)[tensor.name].astype(np.float64).reshape(magnitudes.shape)
        return float(np.square((stored - tensor.zero_point) * tensor.scale - magnitudes).mean())

    fitted, original = misjudged(), Preparation._gated
    monkeypatch.setattr(Preparation, "_gated", lambda self, *others: original(self, *others[:3]))
    assert fitted < 0.8 * misjudged()
