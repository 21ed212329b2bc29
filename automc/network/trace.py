"""A torch module becomes a `Network`: its operations are recorded by torch.fx and written as layers."""

from __future__ import annotations

import copy
import inspect
import traceback
from collections import Counter
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn

from automc.errors import DataError, UnsupportedLayer, WeightsError
from automc.network.coupling import couple
from automc.network.fold import fold
from automc.network.forward import forward
from automc.network.graph import Conv, Network, Shape
from automc.network.lowering import lower

_TOLERANCE = 1e-4  # of the largest result: float32 sums in another order differ by less than 1e-6
# What to do about what torch says of values that are not known while operations are recorded.
_ADVICE = {
    "item assignment": (
        "Nothing can be written into a part of a tensor. Join the parts over channels by torch.cat, or multiply by a "
        "constant that is 0 where values are to vanish."
    ),
    "": (
        "Its forward pass must be the same sequence of operations for every image: no if, loop or Python number that "
        "depends on a tensor's values. Choose by settings of the module instead."
    ),
}
_COLLECTING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)  # *args, **kwargs


@torch.no_grad()
def trace(module: nn.Module, shape: Shape, mean: tuple[float, ...], std: tuple[float, ...], name: str) -> Network:
    """The `Network` that `module` computes in evaluation for images of `shape` (channels, height, width).

    `mean` and `std` normalise an image channel by channel. `module` itself is not changed. Batch norms and activations
    are folded; that the layers compute what the module computes is checked on random images.

    Raises `UnsupportedLayer` naming every operation that has no form in automc, `WeightsError` for weights or
    answers that are not finite, `DataError` where the module does not take images of `shape`.
    """
    module = copy.deepcopy(module).cpu().float().eval()
    _check_finite(module, name)
    images = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    graph = _record(module, name)
    results = _run(module, graph, images, name)
    layers, notes = fold(lower(module, graph, results, shape, name))
    notes += _shared_weights(module, graph)
    if not any(isinstance(layer, Conv) for layer in layers):
        raise UnsupportedLayer(f"{name} has no layer with weights; there is nothing to compress")
    _check_same(forward(layers, images)[layers[-1].name].flatten(1), module, images, name)
    groups, channel_slots = couple(layers)
    return Network(name, tuple(layers), groups, channel_slots, tuple(mean), tuple(std), tuple(notes))


def _check_finite(module: nn.Module, name: str) -> None:
    for key, value in module.state_dict().items():
        if not torch.isfinite(value).all():
            raise WeightsError(f"{name}: {key} holds values that are not finite; train it again or load other weights")


def _record(module: nn.Module, name: str) -> fx.Graph:
    _, *others = inspect.signature(module.forward).parameters.values()
    needed = [other.name for other in others if other.default is other.empty and other.kind not in _COLLECTING]
    if needed:
        raise UnsupportedLayer(
            f"{name} takes further inputs beside the image: {', '.join(needed)}. automc compresses networks of one "
            "input; give the others a default value, or compress a module that computes them itself."
        )
    settings = {other.name: other.default for other in others if other.default is not other.empty}
    try:
        return fx.Tracer().trace(module, settings)
    except Exception as error:  # whatever the module's own code raises on values that are not known yet
        advice = next((advice for words, advice in _ADVICE.items() if words in str(error)), _ADVICE[""])
        raise UnsupportedLayer(f"{name} cannot be traced: {_where(error, module)}: {error}\n{advice}") from error


def _where(error: Exception, module: nn.Module) -> str:
    """The last line of the user's own code in an error's traceback, and the layer that it is part of, with its type."""
    torch_folder = inspect.getfile(torch).removesuffix("__init__.py")
    *_, (frame, line) = (
        step for step in traceback.walk_tb(error.__traceback__) if not _file(step[0]).startswith(torch_folder)
    )
    names = {part: name for name, part in module.named_modules()}
    layer = frame.f_locals.get("self")
    title = f"{names[layer] or 'forward'} ({type(layer).__name__})" if layer in names else "forward"
    return f"{title}, {_file(frame)}:{line}"


def _file(frame: FrameType) -> str:
    return frame.f_code.co_filename


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps what every node gives."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(fx.GraphModule(module, graph), garbage_collect_values=False)
        self.results: dict[fx.Node, Any] = {}

    def run_node(self, node: fx.Node) -> Any:
        self.results[node] = super().run_node(node)
        return self.results[node]


def _run(module: nn.Module, graph: fx.Graph, images: Tensor, name: str) -> dict[fx.Node, Any]:
    recorder = _Recorder(module, graph)
    try:
        recorder.run(images.clone())
    except Exception as error:  # whatever the module's own operations raise
        shape = " x ".join(str(length) for length in images.shape[1:])
        raise DataError(f"{name} does not compute two images of {shape}: {str(error).splitlines()[0]}") from error
    return recorder.results


def _shared_weights(module: nn.Module, graph: fx.Graph) -> list[str]:
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    return [
        f"{target} is called {count} times; each call becomes a layer with its own copy of the weights"
        for target, count in calls.items()
        if count > 1 and next(module.get_submodule(target).parameters(), None) is not None
    ]


def _check_same(result: Tensor, module: nn.Module, images: Tensor, name: str) -> None:
    expected = module(images.clone()).flatten(1)
    if not torch.isfinite(expected).all():
        raise WeightsError(
            f"{name} answers random images with values that are not finite; its weights are too large, or it divides "
            "by what may be 0. Train it again or load other weights."
        )
    difference = float((result - expected).abs().max())
    if not difference <= _TOLERANCE * float(expected.abs().max()):
        raise UnsupportedLayer(
            f"{name}: the traced layers do not compute what the module computes (results differ by {difference:.3g}). "
            "Does an operation write in place into a tensor that is read again later, or draw random numbers? "
            "Use inplace=False there."
        )
