"""From a recorded graph of torch operations to layers, one operation after the other."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from automc.errors import UnsupportedLayer
from automc.network.fold import used
from automc.network.graph import Gather, Input, Layer, Shape
from automc.network.operators import ADVICE, FUNCTIONS, Place
from automc.network.views import Refused, View

_SUPPORTED = (
    "automc understands Conv2d, Linear, BatchNorm2d, ReLU, ReLU6, Hardswish, Hardsigmoid, Sigmoid, SiLU, GELU, Tanh, "
    "sums and differences, products with constants and with gains of (channels, 1, 1), torch.cat over channels, "
    "slices, splits, shuffles and zero padding of channels, PixelShuffle, average and max pooling, flattening, dropout."
)


class _Unknown:
    """What an operation that was refused would have given."""


def lower(module: nn.Module, graph: fx.Graph, results: dict[fx.Node, Any], shape: Shape, name: str) -> list[Layer]:
    """The layers that `graph` needs for its result, last the one that writes it.

    `results` holds what every node gave for two images. Raises `UnsupportedLayer` naming all operations without a form.
    """
    lowering = _Lowering(module, shape)
    values: dict[fx.Node, Any] = {}
    faults: list[str] = []
    for node in graph.nodes:
        arguments, named = fx.map_arg((node.args, node.kwargs), values.__getitem__)
        try:
            values[node] = lowering.value(node, arguments, named, results[node])
        except Refused as refusal:
            faults.append(f"  {lowering.title(node)}: {refusal}")
            values[node] = _Unknown()
    if faults:
        operations = "an operation" if len(faults) == 1 else f"{len(faults)} operations"
        raise UnsupportedLayer(
            f"{name} has {operations} that automc cannot compile:\n"
            + "\n".join(faults)
            + f"\n{_SUPPORTED}\nReplace the others in the module and train it again, or compress a part without them."
        )
    return used(lowering.layers, values[node].name)


class _Lowering:
    """The layers so far, and the place of the operation that is being written (see `operators.Place`)."""

    size: torch.Size

    def __init__(self, module: nn.Module, shape: Shape) -> None:
        first = Input("input", (), shape)
        self.layers: list[Layer] = [first]
        self._input = View(first, torch.Size((2, *shape)))
        self._modules = dict(module.named_modules())
        self._names = {first.name}
        self._gathers: dict[tuple[str, tuple[int, ...], int], Layer] = {}
        self._node: fx.Node

    def value(self, node: fx.Node, arguments: tuple[Any, ...], named: dict[str, Any], result: Any) -> Any:
        """What `node` gives, with `View`s for tensors that depend on the image. Raises `Refused`."""
        if node.op == "placeholder" and node.prev.op != "placeholder":
            return self._input  # the others are arguments with a default value
        leaves = pytree.tree_leaves((arguments, named))
        computed = any(isinstance(leaf, View | _Unknown) for leaf in leaves)
        if not computed or not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(result)):
            return result  # known without an image: a weight, a shape, what is computed from them
        function = self._function(node)
        if any(isinstance(leaf, _Unknown) for leaf in leaves):
            return _Unknown()
        self._node = node
        self.size = result.shape if isinstance(result, Tensor) else torch.Size()
        modules = (self._modules[str(node.target)],) if node.op == "call_module" else ()
        try:
            call = inspect.signature(function).bind(self, *modules, *arguments, **named)
        except TypeError as error:
            raise Refused(f"its arguments are not understood: {error}") from error
        return function(*call.args, **call.kwargs)

    def name(self, word: str) -> str:
        if self._node.op == "call_module":
            return self._unique(str(self._node.target))
        return self._unique(_within(self._node, word))

    def _unique(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self._names:
            count += 1
            name = f"{wanted}_{count}"
        self._names.add(name)
        return name

    def emit(self, layer: Layer) -> View:
        self.layers.append(layer)
        return View(layer, self.size)

    def read(self, view: View) -> Layer:
        picked = view.gather()
        if picked is None:
            return view.layer
        index, stride = picked
        key = (view.layer.name, index, stride)
        if key not in self._gathers:
            _, height, width = view.layer.shape
            shape = (len(index), -(-height // stride), -(-width // stride))
            name = self._unique(_within(self._node, "gather"))
            self._gathers[key] = Gather(name, (view.layer.name,), shape, index, stride)
            # Beside what it reads, so that of a sum's two operands the convolution is the one computed last.
            self.layers.insert(self.layers.index(view.layer) + 1, self._gathers[key])
        return self._gathers[key]

    def title(self, node: fx.Node) -> str:
        """The name of an operation's module, or of the module that calls it, and what it is."""
        if node.op == "call_module":
            return f"{node.target} ({type(self._modules[str(node.target)]).__name__})"
        word = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        return f"{_within(node, 'forward')} ({word})"

    def _function(self, node: fx.Node) -> Callable[..., Any]:
        kinds: tuple[Any, ...] = (node.target,)
        if node.op == "call_module":
            kinds = type(self._modules[str(node.target)]).__mro__
        elif node.op == "output":
            return _output
        for kind in kinds:
            if kind in FUNCTIONS:
                return FUNCTIONS[kind]
        raise Refused(next((ADVICE[kind] for kind in kinds if kind in ADVICE), "not supported"))


def _output(at: Place, result: Any) -> Layer:
    """The layer that writes what the module gives."""
    if not isinstance(result, View):
        kind = type(result).__name__.removeprefix("immutable_")
        raise Refused(f"the module gives a {kind}; it must give one tensor")
    return at.read(result)


def _within(node: fx.Node, word: str) -> str:
    """`word` after the qualified name of the module whose forward pass holds `node`."""
    scopes = [str(scope) for scope, _ in node.meta.get("nn_module_stack", {}).values()]
    if node.op == "call_module":
        scopes = scopes[:-1]
    return f"{scopes[-1]}.{word}" if scopes else word
