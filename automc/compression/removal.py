"""The orders in which the channels of each group leave, by name; the default, `second_order`, is in `prune.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from automc.compression.prune import second_order
from automc.compression.reconstruct import as_matrix
from automc.compression.statistics import Moments, batches
from automc.errors import NameNotFound
from automc.files import suggest
from automc.network.forward import walk
from automc.network.graph import Conv, Network
from automc.schema import Removal

Orders = dict[str, NDArray[np.int64]]

_IMAGES = 8  # at once, as every tensor of theirs is held for its gradient


def removal_orders(
    removal: Removal, network: Network, pixels: NDArray[np.uint8], moments: Mapping[str, Moments]
) -> Orders:
    """For each prunable group its slots, the first to leave first; what remains of it is nested.

    pixels: the calibration images `n x h x w x c`; moments: of each convolution's inputs there. Raises `NameNotFound`
    for an order that nobody knows.
    """
    if removal not in _ORDERS:
        raise NameNotFound(f"no removal order '{removal}'{suggest(removal, get_args(Removal))}")
    return _ORDERS[removal](network, pixels, moments)


def _second_order(network: Network, pixels: NDArray[np.uint8], moments: Mapping[str, Moments]) -> Orders:
    return second_order(network, moments)


def _magnitude(network: Network, pixels: NDArray[np.uint8], moments: Mapping[str, Moments]) -> Orders:
    """The sum of the absolute weights that write a channel, batch norm folded in (Li et al. 2017, section 3.1)."""
    return _ascending(network, {layer.name: as_matrix(layer).abs().sum(2).flatten().numpy() for layer in network.convs})


def _batch_norm(network: Network, pixels: NDArray[np.uint8], moments: Mapping[str, Moments]) -> Orders:
    """The scale of a channel's batch norm (Liu et al. 2017, section 3).

    It is the standard deviation of what the batch norm writes. So what is taken is the measured standard deviation of a
    channel on the calibration images, which convolutions without a batch norm have, too, and those whose weights
    changed since one was folded in.
    """
    scales = {}
    for layer in network.convs:
        rows = as_matrix(layer)
        scales[layer.name] = ((rows @ moments[layer.name].gram) * rows).sum(2).clamp(min=0).sqrt().flatten().numpy()
    return _ascending(network, scales)


@torch.enable_grad()
def _taylor(network: Network, pixels: NDArray[np.uint8], moments: Mapping[str, Moments]) -> Orders:
    """The change of the loss, to first order, when a channel becomes zero (Molchanov et al. 2017, section 2.2).

    The loss is half of the squared results, centred over the channels: it needs no labels, and its gradient is not zero
    where the dense network stands. The change is taken image by image, so that losses and gains do not cancel out.
    """
    losses = {layer.name: np.zeros(layer.shape[0]) for layer in network.convs}
    for batch in batches(network, pixels):
        for images in torch.split(batch, _IMAGES):
            written = {}
            for layer, _, _, after in walk(network.layers, images.requires_grad_()):
                if isinstance(layer, Conv):
                    written[layer.name] = after
            results = after.flatten(1) - after.flatten(1).mean(1, keepdim=True)
            gradients = torch.autograd.grad(results.square().sum() / 2, list(written.values()))
            for (name, values), gradient in zip(written.items(), gradients, strict=True):
                losses[name] += (values * gradient).sum((2, 3)).abs().sum(0).detach().numpy()
    return _ascending(network, losses)


_ORDERS: dict[Removal, Callable[[Network, NDArray[np.uint8], Mapping[str, Moments]], Orders]] = {
    "second_order": _second_order,
    "magnitude": _magnitude,
    "batch_norm": _batch_norm,
    "taylor": _taylor,
}


def _ascending(network: Network, scores: Mapping[str, NDArray[np.float64]]) -> Orders:
    """Slots by the sum of their channels' scores, the smallest first; of equal ones the lower slot.

    Scores, `out` for each convolution, are relative to their layer's root mean square, so that every layer of a group
    counts alike (Molchanov et al. 2017, section 2.2, normalises so, too).
    """
    orders = {}
    for group in network.groups:
        if group.prunable:
            total = np.zeros(group.slots)
            for name, slots in group.members.items():
                length = max(float(np.sqrt(np.square(scores[name]).mean())), 1e-30)
                np.add.at(total, slots, scores[name] / length)
            orders[group.name] = total.argsort(kind="stable")
    return orders
