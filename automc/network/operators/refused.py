"""What has no integer form although many networks use it, each with what to do instead."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

_BY_KIND: dict[tuple[Any, ...], str] = {
    (
        nn.Softmax, nn.LogSoftmax, F.softmax, F.log_softmax, torch.softmax, torch.log_softmax, "softmax", "log_softmax",
    ): "automc takes a network that writes logits; leave the softmax to the loss",
    (
        nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d, nn.LocalResponseNorm, F.group_norm, F.layer_norm,
        F.instance_norm, F.local_response_norm,
    ): "it normalises by statistics of each image; train with nn.BatchNorm2d, whose statistics are fixed",
    (
        nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell,
    ): "it is recurrent; compress the convolutional part before it alone",
    (
        nn.MultiheadAttention, nn.TransformerEncoderLayer, F.scaled_dot_product_attention, torch.matmul, torch.bmm,
        operator.matmul, "matmul", "bmm", "__matmul__",
    ): "it multiplies two tensors that both depend on the image, as attention does; automc has no kernel for that",
    (
        nn.LeakyReLU, nn.PReLU, nn.ELU, F.leaky_relu, F.prelu, F.elu,
    ): "its negative part is not understood; train with nn.ReLU, or nn.Hardswish where a negative part matters",
    (
        nn.ConvTranspose2d, F.conv_transpose2d, nn.Upsample, F.interpolate,
    ): "it makes maps larger; train with a convolution and nn.PixelShuffle",
    (
        nn.Conv1d, nn.Conv3d, nn.MaxPool1d, nn.AvgPool1d,
    ): "it is not for images; write it with two dimensions, of which one may have length 1",
    (
        torch.rand, torch.randn, torch.rand_like, torch.randn_like, torch.randint_like, torch.bernoulli,
        torch.multinomial, "bernoulli", "bernoulli_", "random_", "uniform_", "normal_", "multinomial",
    ): "it draws random numbers, and a network must answer alike each time; draw them only where self.training is true",
}  # fmt: skip

ADVICE: dict[Any, str] = {target: advice for targets, advice in _BY_KIND.items() for target in targets}
