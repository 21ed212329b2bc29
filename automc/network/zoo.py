"""The reference networks by name, and the way for a user's own to join them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from automc.errors import NameNotFound, WeightsError
from automc.files import closest

if TYPE_CHECKING:  # torch takes seconds to import, and the names alone need none of it
    from torch import nn

Factory = Callable[[int, int], "nn.Module"]  # (classes, image channels) -> a network with fresh weights


def _resnet8(classes: int, channels: int) -> nn.Module:
    from automc.network.resnet import resnet8

    return resnet8(classes, channels)


def _plain20(classes: int, channels: int) -> nn.Module:
    from automc.network.resnet import plain20

    return plain20(classes, channels)


def _cifar_resnet(depth: int, classes: int, channels: int) -> nn.Module:
    from automc.network.resnet import cifar_resnet

    return cifar_resnet(depth, classes, channels)


_REGISTRY: dict[str, Factory] = {
    "resnet8": _resnet8,
    "plain20": _plain20,
    **{f"resnet{depth}": partial(_cifar_resnet, depth) for depth in (20, 32, 44, 56)},
}


def register_network(name: str, factory: Factory) -> None:
    """Make a user's own network known under `name` (from a `--plugin` module)."""
    _REGISTRY[name] = factory


def network_names() -> list[str]:
    """The names that `build_network` knows."""
    return sorted(_REGISTRY)


def build_network(name: str, classes: int, channels: int) -> nn.Module:
    """A network with fresh weights, in evaluation mode. Raises `NameNotFound` for an unknown name."""
    if name not in _REGISTRY:
        raise NameNotFound(f"no network '{name}'{closest(name, network_names())} (known: {', '.join(network_names())})")
    return _REGISTRY[name](classes, channels).eval()


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill `module` from a safetensors file.

    Raises `WeightsError` for a file that cannot be read, names or shapes that differ, or values that are not finite.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read weights from {path}: {error}") from error
    # Checkpoints of networks that were trained in parallel carry this prefix on every name.
    stored = {name.removeprefix("module."): value for name, value in stored.items()}
    wanted = module.state_dict()
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}  # of no use after training
    missing = sorted(set(wanted) - set(stored) - counters)
    unknown = sorted(set(stored) - set(wanted))
    differing = sorted(name for name in set(wanted) & set(stored) if wanted[name].shape != stored[name].shape)
    if missing or unknown or differing:
        kinds = {"missing in the file": missing, "not in the network": unknown, "of another shape": differing}
        faults = [f"{kind}: {_some(names)}" for kind, names in kinds.items() if names]
        raise WeightsError(f"{path} does not fit this network; {'; '.join(faults)}")
    for name, value in stored.items():
        if not torch.isfinite(value).all():
            raise WeightsError(f"{path}: {name} holds values that are not finite")
    module.load_state_dict(stored, strict=False)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
