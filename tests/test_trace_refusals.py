"""Tracing refuses what has no integer form, by name, with the reason and what to do instead."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automc.errors import DataError, UnsupportedLayer, WeightsError
from tests.networks import (
    Custom,
    TinyPlain,
    assert_same,
    head,
    parts,
    randomise,
    traced,
)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.lstm, self.linear = nn.Conv2d(1, 4, 1), nn.LSTM(8, 5, batch_first=True), nn.Linear(5, 10)

    def forward(self, x: Tensor) -> Tensor:
        values, _ = self.lstm(F.softplus(self.stem(x)).mean(1))
        return self.linear(values[:, -1])


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = -x
        return self.linear(x.flatten(1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.attention = nn.Conv2d(1, 4, 1), nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens)[0].mean(1)


class TwoImages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.linear((x + y).flatten(1))


class Masked(nn.Module):
    """A second argument that has a default value is left at it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)
        randomise(self, 0)
        self.eval()

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 2.0) -> Tensor:
        if mask is not None:
            x = x * mask
        return self.linear(x.flatten(1)) * scale


class Assigning(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y[:, 0] = 0
        return y


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.stem(x + torch.rand_like(x))


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.flatten(1, 2))


def message_of(module: nn.Module) -> str:
    with pytest.raises(UnsupportedLayer) as caught:
        traced(module)
    return str(caught.value)


def test_every_unsupported_operation_is_named_at_once() -> None:
    message = message_of(Recurrent())
    assert message.startswith("Recurrent has 2 operations that automc cannot compile:")
    for part in ("forward (softplus)", "lstm (LSTM): it is recurrent", "automc understands Conv2d", "Replace"):
        assert part in message


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Attention, "attention (MultiheadAttention): it multiplies two tensors"),
        (TwoImages, "TwoImages takes further inputs beside the image: y"),
        (Assigning, "Join the parts over channels by torch.cat"),
        (Noisy, "forward (rand_like): it draws random numbers"),
        (Sequence, "conv (Conv1d): it is not for images"),
    ],
)
def test_hostile_modules_are_refused_with_a_reason(kind: type[nn.Module], words: str) -> None:
    assert words in message_of(kind())


def test_further_arguments_keep_their_default_values() -> None:
    module = Masked()
    assert_same(traced(module), module)


def test_control_flow_is_explained_with_its_place() -> None:
    message = message_of(Branching())
    assert "Branching cannot be traced: forward (Branching), " in message
    assert "test_trace_refusals.py:" in message
    assert "no if, loop" in message


def test_what_cannot_be_recorded_is_named_with_its_layer() -> None:
    message = message_of(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(Assigning())))
    assert "cannot be traced: 1.0 (Assigning), " in message
    assert "'Proxy' object does not support item assignment" in message


def through(self: nn.Module, x: Tensor) -> Tensor:
    return head(self, self.one(self.stem(x)))


def behind(operation: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda self, x: head(self, operation(self.stem(x)))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    ("part", "words"),
    [
        (nn.Softplus(), "one (Softplus): not supported"),
        (nn.LeakyReLU(), "train with nn.ReLU"),
        (nn.GELU("tanh"), "set approximate='none'"),
        (nn.GroupNorm(2, 8), "one (GroupNorm): it normalises by statistics of each image; train with nn.BatchNorm2d"),
        (nn.ConvTranspose2d(8, 8, 2, 2), "train with a convolution and nn.PixelShuffle"),
        (nn.Conv2d(8, 8, 3, padding_mode="reflect", padding=1), "one (Conv2d): its padding mode is 'reflect'"),
        (nn.Conv2d(8, 8, 2, padding="same"), "take an odd kernel"),
        (nn.BatchNorm2d(8, affine=False, track_running_stats=False), "track_running_stats=True"),
        (nn.Hardtanh(), "it clamps to [-1.0, 1.0]"),
        (nn.MaxPool2d(3, 2, ceil_mode=True), "ceil_mode=False"),
        (nn.MaxPool2d(3, 2, dilation=2), "dilation=1"),
        (nn.AvgPool2d(3, 1, 1, count_include_pad=False), "count_include_pad=True"),
        (nn.AdaptiveAvgPool2d(3), "choose sizes that divide"),
        (nn.Linear(8, 8), "flatten it first"),
    ],
)
def test_modules_that_are_refused(part: nn.Module, words: str) -> None:
    assert words in message_of(Custom(parts(8, one=part), through))


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (lambda y: y * y, "For x * f(x) use nn.SiLU"),
        (lambda y: y * y.mean(1, keepdim=True), "use x.mean((2, 3))"),
        (lambda y: y / y, "division by a constant"),
        (lambda y: y + torch.arange(8.0), "differs from pixel to pixel"),
        (lambda y: y.mean((2, 3), True) * torch.ones(8, 8, 8), "does not fit a tensor of size"),
        (lambda y: (y.flatten(2) @ torch.eye(64)).view(-1, 8, 8, 8), "as attention does"),
        (lambda y: y + y.mean((2, 3), keepdim=True), "both must have one shape"),
        (lambda y: torch.cat([y, y], 2), "only channels (dim=1) can be joined"),
        (lambda y: torch.cat([y, y[:, :0]], 1), "leave the empty tensor out"),
        (lambda y: F.pad(y, (1, 1, 1, 1)), "pad and crop inside a convolution"),
        (lambda y: F.pad(y[:, 1:7], (0, 0, 0, 0, 1, 1), value=1.0), "only zeros can be padded"),
        (lambda y: F.dropout(y), "pass training=self.training"),
        (lambda y: y.mean(2, keepdim=True), "use x.mean((2, 3))"),
        (lambda y: F.conv2d(y, y.flatten(1)[:1, :64].view(8, 8, 1, 1)), "its weights are computed from the image"),
        (lambda y: y.mean((2, 3), keepdim=True, dtype=torch.float32), "its arguments are not understood"),
        (lambda y: y.flip(0), "mixes the images of a batch"),
        (lambda y: y + F.relu_(y.view(-1, 8, 8, 8)), "inplace=False"),
        (lambda y: F.relu(y, inplace=True) + y, "inplace=False"),
    ],
)
def test_operations_that_are_refused(operation: Callable[[Tensor], Tensor], words: str) -> None:
    assert words in message_of(Custom(parts(8), behind(operation)))


@pytest.mark.parametrize(
    ("compute", "words"),
    [
        (lambda self, x: head(self, self.stem(x)).softmax(1), "leave the softmax to the loss"),
        (lambda self, x: (head(self, self.stem(x)), x), "gives a tuple; it must give one tensor"),
        (lambda self, x: {"logits": head(self, self.stem(x))}, "gives a dict; it must give one tensor"),
        (lambda self, x: self.stem(x).flatten(1), "neither a choice of channels"),
        (lambda self, x: x, "no layer with weights"),
        (lambda self, x: head(self, self.stem(x)).flip(0), "forward (output): it mixes the images of a batch"),
    ],
)
def test_results_that_are_refused(compute: Callable[..., Tensor], words: str) -> None:
    assert words in message_of(Custom(parts(8), compute))


def test_weights_that_are_not_finite() -> None:
    module = TinyPlain()
    module.conv2[1].running_mean[3] = torch.nan
    with pytest.raises(WeightsError, match=r"conv2\.1\.running_mean holds values that are not finite"):
        traced(module)


def test_answers_that_are_not_finite() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(32, 3)).eval()
    for layer in (module[0], module[1]):
        nn.init.constant_(layer.weight, 1e20)
    with pytest.raises(WeightsError, match="Sequential answers random images with values that are not finite"):
        traced(module)


def test_images_of_another_shape() -> None:
    with pytest.raises(DataError, match="does not compute two images of 3 x 8 x 8"):
        traced(TinyPlain(), (3, 8, 8))
