"""Dynamic channel gating: from the means of a layer's input channels, which output channels will matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from automc.compression.coded import Gate, IntegerWeights
from automc.compression.compensate import round_compensated
from automc.compression.quantize import activation_grid, damp, levels_of, weight_scales
from automc.compression.statistics import batches
from automc.network.forward import walk
from automc.network.graph import Conv, Network

_RIDGE = 1e-2  # of the mean diagonal: a few hundred images do not determine every weight


@dataclass(frozen=True, eq=False)
class Responses:
    """Of each image: the mean of each channel that a convolution reads, `n x in`, and of the magnitudes of each that it
    writes behind its activation, `n x out`."""

    means: Tensor
    magnitudes: Tensor

    def of(self, inputs: NDArray[np.int64], outputs: NDArray[np.int64]) -> Responses:
        """Of the channels that remain."""
        return Responses(self.means[:, inputs], self.magnitudes[:, outputs])


@torch.inference_mode()
def responses(network: Network, pixels: NDArray[np.uint8]) -> Mapping[str, Responses]:
    """How every convolution of the dense network responds to the images `n x h x w x c`."""
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {layer.name: [] for layer in network.convs}
    for batch in batches(network, pixels):
        for layer, inputs, _, after in walk(network.layers, batch):
            if isinstance(layer, Conv):
                parts[layer.name].append((inputs[0].mean((2, 3)), after.abs().mean((2, 3))))
    return {
        name: Responses(*(torch.cat(each).double() for each in zip(*pairs, strict=True)))
        for name, pairs in parts.items()
    }


def gate_of(seen: Responses, active: int) -> Gate:
    """The gate that lets the `active` channels of greatest expected magnitude through (Gao et al. 2019, section 3.1).

    What is expected is linear in the means of the inputs, by least squares; where that work learns it with the network,
    this needs no training.
    """
    means, magnitudes = seen.means, seen.magnitudes
    pooled = activation_grid(means.float().numpy(), 8)
    centred = means - means.mean(0)
    gram = (centred.mT @ centred)[None] / len(means)
    cross = (centred.mT @ (magnitudes - magnitudes.mean(0)))[None] / len(means)
    weight = torch.linalg.solve(damp(gram, _RIDGE), cross).mT
    levels, scale = levels_of(8), weight_scales(weight, 8)
    codes = round_compensated(weight, scale, gram, levels)[0]
    expected = centred @ (codes * scale[0, :, None]).mT + magnitudes.mean(0)
    shaped = codes.to(torch.int8).numpy()[:, :, None, None]
    weights = IntegerWeights(shaped, 8, scale[0].numpy(), np.zeros(len(shaped)))
    weights = weights.with_means(means.mean(0)[None].numpy(), magnitudes.mean(0).numpy())
    return Gate(pooled, weights, activation_grid(expected.float().numpy(), 8), active)
