"""The reference networks by name, and the way for a user's own to join them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from automc.errors import WeightsError
from automc.files import not_registered

if TYPE_CHECKING:  # torch takes seconds to import, and the names alone need none of it
    from torch import nn

Factory = Callable[[int, int], "nn.Module"]  # (classes, image channels) -> a network with fresh weights


@dataclass(frozen=True)
class Entry:
    """A network of the zoo. `shape`: the images that it is made for (channels, height, width), `classes`: of them.

    The network takes images of other sizes where its pooling does.
    """

    title: str
    factory: Factory
    shape: tuple[int, int, int] = (3, 32, 32)
    classes: int = 10


def _made(file: str, maker: str, **settings: float) -> nn.Module:
    """A network of a family, whose file is imported, and torch with it, only now that it is wanted."""
    make = getattr(import_module(f"automc.network.architectures.{file}"), maker)
    module: nn.Module = make(**settings)
    return module


def _classifier(file: str, maker: str, **settings: float) -> Factory:
    return lambda classes, channels: _made(file, maker, classes=classes, channels=channels, **settings)


def _image(file: str, maker: str, **settings: int) -> Factory:
    """The factory of a network whose result is an image, which has no classes."""
    return lambda classes, channels: _made(file, maker, channels=channels, **settings)


_GREY: tuple[int, int, int] = (1, 28, 28)
_ZOO: dict[str, Entry] = {
    "resnet8": Entry("ResNet-8 of MLPerf Tiny", _classifier("resnet", "resnet8")),
    "plain20": Entry("ResNet-20 without its shortcuts", _classifier("resnet", "plain20")),
    **{
        f"resnet{depth}": Entry(f"CIFAR ResNet-{depth}", _classifier("resnet", "cifar_resnet", depth=depth))
        for depth in (20, 32, 44, 56)
    },
    "resnet29_bottleneck": Entry(
        "CIFAR ResNet-29 in bottlenecks", _classifier("resnet", "bottleneck_resnet", depth=29)
    ),
    "vgg16_bn": Entry("VGG-16 with batch norm", _classifier("vgg", "Vgg")),
    **{
        f"densenet{depth}_k12": Entry(f"DenseNet-{depth}", _classifier("densenet", "DenseNet", depth=depth, growth=12))
        for depth in (22, 40)
    },
    "squeezenet": Entry("SqueezeNet 1.0", _classifier("squeezenet", "SqueezeNet")),
    **{
        f"mobilenetv{version}_{round(100 * width):03d}": Entry(
            f"MobileNetV{version} x{width:g}",
            _classifier("mobilenet", f"MobileNetV{version}", width=width, small=True),
        )
        for version in (1, 2)
        for width in (0.25, 0.5, 1.0)
    },
    "mobilenetv1_025_96": Entry(
        "MobileNetV1 x0.25, visual wake words of MLPerf Tiny",
        _classifier("mobilenet", "MobileNetV1", width=0.25, small=False),
        (3, 96, 96),
        2,
    ),
    **{
        f"mobilenetv2_{round(100 * width):03d}_{size}": Entry(
            f"MobileNetV2 x{width:g}",
            _classifier("mobilenet", "MobileNetV2", width=width, small=False),
            (3, size, size),
            1000,
        )
        for width, size in ((0.35, 96), (1.0, 96), (1.0, 224))
    },
    **{
        f"shufflenetv1_g{groups}": Entry(
            f"ShuffleNetV1 x1, {groups} groups", _classifier("shufflenet", "ShuffleNetV1", groups=groups)
        )
        for groups in (2, 3)
    },
    **{
        f"shufflenetv2_{round(100 * width):03d}": Entry(
            f"ShuffleNetV2 x{width:g}", _classifier("shufflenet", "ShuffleNetV2", width=width)
        )
        for width in (0.5, 1.0)
    },
    "ds_cnn": Entry("DS-CNN, keyword spotting of MLPerf Tiny", _classifier("ds_cnn", "DsCnn"), (1, 49, 10), 12),
    "mnasnet_050": Entry("MnasNet-A1 x0.5", _classifier("mnasnet", "MnasNet", width=0.5, hard=False)),
    "mnasnet_050_hard": Entry(
        "MnasNet-A1 x0.5 with hard-swish and hard-sigmoid", _classifier("mnasnet", "MnasNet", width=0.5, hard=True)
    ),
    "autoencoder": Entry("autoencoder, anomaly detection of MLPerf Tiny", _image("autoencoder", "Autoencoder"), _GREY),
    "dncnn": Entry("DnCNN, removal of noise", _image("images", "DnCnn", depth=17, width=64)),
    "dncnn_small": Entry("DnCNN of 8 layers, 24 channels", _image("images", "DnCnn", depth=8, width=24)),
    "dncnn_tiny": Entry("DnCNN of 4 layers, 16 channels", _image("images", "DnCnn", depth=4, width=16)),
    "fsrcnn_x2": Entry("FSRCNN, images twice as large", _image("images", "Fsrcnn", factor=2), (3, 16, 16)),
    "lenet5": Entry("LeNet-5 of Deep Compression", _classifier("lenet", "LeNet5"), _GREY),
}
_REGISTRY: dict[str, Factory] = {name: entry.factory for name, entry in _ZOO.items()}


def register_network(name: str, factory: Factory) -> None:
    """Make a user's own network known under `name` (from a `--plugin` module)."""
    _REGISTRY[name] = factory


def network_names() -> list[str]:
    """The names that `build_network` knows."""
    return sorted(_REGISTRY)


def zoo() -> dict[str, Entry]:
    """The networks that automc brings with it, by name."""
    return dict(_ZOO)


def find_network(name: str) -> Factory:
    """What makes the network called `name`. Raises `NameNotFound` with the nearest name."""
    if name not in _REGISTRY:
        raise not_registered("network", name, network_names())
    return _REGISTRY[name]


def build_network(name: str, classes: int, channels: int) -> nn.Module:
    """A network with fresh weights, in evaluation mode; one whose result is an image has no use for `classes`.

    Raises `NameNotFound` for an unknown name.
    """
    return find_network(name)(classes, channels).eval()


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
    wanted = module.state_dict()
    if not stored.keys() <= wanted.keys():
        # Checkpoints of networks that were trained in parallel carry this prefix on every name.
        stored = {name.removeprefix("module."): value for name, value in stored.items()}
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
