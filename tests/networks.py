"""Tiny networks for 8 x 8 digits, with seeded weights and batch norms that are not those of a fresh module."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automc.network.forward import forward
from automc.network.graph import Network, Shape
from automc.network.trace import trace

torch.set_num_threads(1)  # on tensors as small as these, threads would mostly wait for each other

SHAPE: Shape = (1, 8, 8)
MEAN, STD = (0.305,), (0.376,)


def traced(module: nn.Module, shape: Shape = SHAPE) -> Network:
    """The `Network` of `module`, named after its class."""
    channels = shape[0]
    return trace(module, shape, MEAN * channels, STD * channels, type(module).__name__)


def randomise(module: nn.Module, seed: int) -> None:
    """Fill weights, batch norms and their statistics, drawing from no global generator."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            spread = (part.weight[0].numel()) ** -0.5
            uniform(part.weight, -1.7 * spread, 1.7 * spread)
            if part.bias is not None:
                uniform(part.bias, -0.2, 0.2)
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.running_mean is not None:
            uniform(part.weight, 0.5, 1.5)
            uniform(part.bias, -0.3, 0.3)
            uniform(part.running_mean, -0.3, 0.3)
            uniform(part.running_var, 0.3, 1.2)


class _Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.eval()

    def finish(self, seed: int) -> None:
        randomise(self, seed)
        self.eval()


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class TinyPlain(_Tiny):
    """A chain whose dense layer reads a flattened 12 x 2 x 2 map."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.conv1 = _conv(1, 8, 3, bias=True)
        self.conv2 = _conv(8, 12, 3, 2)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(48, 10)
        self.finish(seed)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.linear(self.dropout(x.view(x.size(0), -1)))


class TinyResidual(_Tiny):
    """A block with an identity shortcut, one with a subsampled, zero-padded one, and one with a projection."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.conv1 = _conv(1, 8, 3)
        self.same1, self.same2 = _conv(8, 8, 3), _conv(8, 8, 3)
        self.padded1, self.padded2 = _conv(8, 12, 3, 2), _conv(12, 12, 3)
        self.projected1, self.projected2 = _conv(12, 16, 3, 2), _conv(16, 16, 3)
        self.project = _conv(12, 16, 1, 2)
        self.linear = nn.Linear(16, 10)
        self.finish(seed)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = F.relu(self.same2(F.relu(self.same1(x))) + x)
        x = F.relu(self.padded2(F.relu(self.padded1(x))) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))
        x = F.relu(self.projected2(F.relu(self.projected1(x))) + self.project(x))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class TinyDepthwise(_Tiny):
    """Depthwise separable convolutions with ReLU6, and a linear bottleneck with a shortcut (MobileNetV2's shape)."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.stem = _conv(1, 8, 3, 2)
        self.expand, self.depthwise, self.reduce = _conv(8, 24, 1), _conv(24, 24, 3, groups=24), _conv(24, 8, 1)
        self.separable = nn.Sequential(_conv(8, 8, 3, 2, groups=8), nn.ReLU6(), _conv(8, 16, 1), nn.ReLU6())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(16, 10)
        self.finish(seed)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.stem(x))
        x = x + self.reduce(F.relu6(self.depthwise(F.relu6(self.expand(x)))))
        return self.linear(self.pool(self.separable(x)).flatten(1))


class TinyConcat(_Tiny):
    """Two branches side by side, pooled, and half of their channels again beside the rest's convolution."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.conv1 = _conv(1, 8, 3)
        self.left, self.right = _conv(8, 6, 1), _conv(8, 10, 3)
        self.pool = nn.AvgPool2d(2)
        self.branch = _conv(8, 8, 3)
        self.linear = nn.Linear(16, 10)
        self.finish(seed)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = self.pool(torch.cat([F.relu(self.left(x)), F.relu(self.right(x))], 1))
        first, second = x.chunk(2, 1)
        x = torch.cat([first, F.relu(self.branch(second))], 1)
        return self.linear(x.mean((2, 3)))


TINY_NETWORKS = (TinyPlain, TinyResidual, TinyDepthwise, TinyConcat)


class Custom(nn.Module):
    """A network written as its parts and a function over them."""

    def __init__(self, parts: dict[str, nn.Module], compute: Callable[..., Tensor], seed: int = 0) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.compute = compute
        randomise(self, seed)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self, x)


def head(self: nn.Module, x: Tensor) -> Tensor:
    return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def parts(channels: int, **others: nn.Module) -> dict[str, nn.Module]:
    return {"stem": nn.Conv2d(1, 8, 3, padding=1), **others, "linear": nn.Linear(channels, 10)}


def assert_same(network: Network, module: nn.Module) -> None:
    images = torch.randn((5, *network.input.shape), generator=torch.Generator().manual_seed(7))
    tensors = forward(network.layers, images)
    for layer in network.layers:
        assert tensors[layer.name].shape == (5, *layer.shape)
    with torch.no_grad():
        torch.testing.assert_close(
            tensors[network.output.name].flatten(1), module(images.clone()).flatten(1), rtol=1e-4, atol=1e-5
        )
