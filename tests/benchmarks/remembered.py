"""A dense network that answers each batch once, for benchmarks that fine-tune many policies with one seed."""

from __future__ import annotations

import hashlib
from functools import cache

from torch import Tensor, nn


@cache
def remembered(network: nn.Module) -> nn.Module:
    """`network`, with one memory however often it is asked for."""
    return _Remembered(network.eval())


class _Remembered(nn.Module):
    """A network with a memory of its answers: with one seed, all policies are taught on the same batches.

    The teacher takes a fifth of the time of a step of fine-tuning ResNet-20 at half of its MACs.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._answers: dict[bytes, Tensor] = {}

    def __deepcopy__(self, memo: dict[int, object]) -> _Remembered:
        return self  # `finetune` takes a copy, whose memory would end with it

    def forward(self, inputs: Tensor) -> Tensor:
        content = inputs.numpy().tobytes(order="A")  # in whatever order it lies, which is always the same
        key = hashlib.blake2b(content, digest_size=16).digest()
        if key not in self._answers:
            self._answers[key] = self.module(inputs)
        return self._answers[key]
