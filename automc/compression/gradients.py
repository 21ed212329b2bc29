"""The convolution of fine-tuning: the program's exact sums forward, coarse and fast gradients backward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[int, int]
Geometry = tuple[Pair, Pair, Pair, int]  # stride, padding, dilation, groups


def convolve(source: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry) -> Tensor:
    """`F.conv2d` of integers in float32; where the weights are trained, with gradients in `gradient_type`."""
    if weight.requires_grad:
        result: Tensor = _Convolution.apply(source, weight, bias, *geometry)  # type: ignore[no-untyped-call]
        return result
    return F.conv2d(source, weight, bias, *geometry)


@cache
def gradient_type(device: torch.device) -> torch.dtype:
    """bfloat16 where the processor multiplies it faster than float32, else float32.

    A convolution's weights and inputs are integers within +-256, which bfloat16 holds exactly; what it rounds is only
    the gradient that arrives (Kalamkar et al. 2019 train in it without loss).
    """
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


@contextmanager
def whole_float32() -> Iterator[None]:
    """Within, a CUDA device multiplies float32 as such: TF32, cuDNN's default, would round sums of integers."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    try:
        convolutions.allow_tf32 = products.allow_tf32 = False
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        source: Tensor,
        weight: Tensor,
        bias: Tensor,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
    ) -> Tensor:
        ctx.save_for_backward(source, weight)
        ctx.geometry = (stride, padding, dilation, groups)
        return F.conv2d(source, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        source, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        kind = gradient_type(gradient.device)
        of_source, of_weight, of_bias = torch.ops.aten.convolution_backward(
            *(each.to(kind) for each in (gradient, source, weight)),
            [len(weight)],
            stride,
            padding,
            dilation,
            False,
            [0, 0],
            groups,
            ctx.needs_input_grad[:3],
        )
        gradients = (each if each is None else each.float() for each in (of_source, of_weight, of_bias))
        return (*gradients, None, None, None, None)
