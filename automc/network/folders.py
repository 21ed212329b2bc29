"""A user's own images: a folder with one subfolder for each class, or without labels, or a pair of torch data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from automc.errors import DataError
from automc.network.datasets import Dataset, Images

Pixels = NDArray[np.uint8]

_SUFFIXES = (".png", ".jpg", ".jpeg")
_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}  # kinds of images that become grey or colour without a loss


class TorchDataset(Protocol):
    """A torch data set with a length: its items are pairs of an image and its label."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


def image_folder(path: Path) -> Dataset:
    """The data set of `path/train/<class>/` and `path/test/<class>/`, PNG or JPEG images of one size.

    The classes are the subfolders' names in alphabetical order; the normalisation is computed from the training images.
    Where `train/` and `test/` hold the images themselves, they have no labels, and the data set no classes.
    Raises `DataError` naming the folder that is missing or empty, or the file that cannot be read or differs.
    """
    classes = _subfolders(path / "train")
    if not classes and _images_in(path / "train"):
        return _unlabelled(path)
    if len(classes) < 2:
        raise DataError(
            f"{path / 'train'} must hold at least two subfolders of images, one for each class; got "
            f"{', '.join(classes) or 'none'}"
        )
    tested = _subfolders(path / "test")
    if tested != classes:
        raise DataError(
            f"{path}: the classes of train/ ({', '.join(classes)}) and test/ ({', '.join(tested) or 'none'}) differ"
        )
    files = {part: [_files(path / part / name) for name in classes] for part in ("train", "test")}
    return _read_all(path, files, classes, np.arange(len(classes)))


def _unlabelled(path: Path) -> Dataset:
    if folders := _subfolders(path / "test"):
        raise DataError(f"{path}: train/ holds images without classes, but test/ has {', '.join(folders)}")
    files = {part: [_files(path / part)] for part in ("train", "test")}
    return _read_all(path, files, [], np.array([-1]))


def _read_all(
    path: Path, files: dict[str, list[list[Path]]], classes: Sequence[str], labels: NDArray[np.int64]
) -> Dataset:
    """The images of each part's groups of `files`, each group with its one of `labels`."""
    images = {part: [(str(file), _read(file)) for group in groups for file in group] for part, groups in files.items()}
    parts = {
        part: Images(pixels, np.repeat(labels, [len(group) for group in files[part]]).astype(np.int64))
        for part, pixels in _stack(images).items()
    }
    mean, std = _statistics(parts["train"].pixels, str(path))
    return Dataset(path.resolve().name, tuple(classes), mean, std, parts["train"], parts["test"])


def from_torch(
    name: str,
    train: TorchDataset,
    test: TorchDataset,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    classes: Sequence[str] | None = None,
) -> Dataset:
    """The data set of two torch data sets whose items are pairs (image, label).

    An image is a `height x width x channels` or `height x width` uint8 array, a `channels x height x width` uint8
    tensor or float tensor in [0, 1], or a PIL image; not yet normalised and without random augmentation. `mean` and
    `std` are computed from the training images unless they are given, `classes` are `train.classes` or numbers.
    Raises `DataError` naming the item that does not fit, or for a `mean` or `std` that cannot normalise the images.
    """
    items = {"train": train, "test": test}
    pairs = {part: [_pair(f"{name} {part}[{i}]", items[part][i]) for i in range(len(items[part]))] for part in items}
    for part, found in pairs.items():
        if not found:
            raise DataError(f"{name}: the {part} data set is empty")
    pixels = _stack({part: [(where, image) for where, image, _ in found] for part, found in pairs.items()})
    highest = max(label for found in pairs.values() for _, _, label in found)
    names = tuple(classes or getattr(train, "classes", None) or (str(label) for label in range(highest + 1)))
    for found in pairs.values():
        for where, _, label in found:
            if not 0 <= label < len(names):
                raise DataError(f"{where}: its label is {label}; it must be a number from 0 to {len(names) - 1}")
    labels = {part: np.array([label for _, _, label in found], np.int64) for part, found in pairs.items()}
    computed = _statistics(pixels["train"], name)
    parts = {part: Images(pixels[part], labels[part]) for part in pairs}
    return Dataset(name, names, mean or computed[0], std or computed[1], parts["train"], parts["test"])


def _subfolders(path: Path) -> list[str]:
    if not path.is_dir():
        raise DataError(
            f"{path} is missing; an image folder holds train/<class>/ and test/<class>/ with PNG or JPEG files"
        )
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _images_in(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.suffix.lower() in _SUFFIXES)


def _files(path: Path) -> list[Path]:
    files = _images_in(path)
    if not files:
        raise DataError(f"{path} holds no images ({', '.join(_SUFFIXES)})")
    return files


def _read(path: Path) -> Pixels:
    try:
        with Image.open(path) as image:
            return _pixels_of(str(path), image)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error


def _pixels_of(where: str, image: Image.Image) -> Pixels:
    """`height x width x channels` of a PIL image, one channel for grey, three for colour."""
    if image.mode not in _MODES:
        raise DataError(f"{where}: its pixels are {image.mode}; save it as 8-bit grey or RGB without transparency")
    pixels = np.asarray(image.convert(_MODES[image.mode]))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _pair(where: str, item: Any) -> tuple[str, Pixels, int]:
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(f"{where}: must be a pair (image, label), got {type(item).__name__}")
    image, label = item
    try:
        number = int(label)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: its label must be a whole number, got {label!r}") from error
    return where, _pixels(where, image), number


def _pixels(where: str, image: Any) -> Pixels:
    if isinstance(image, Image.Image):
        return _pixels_of(where, image)
    if isinstance(image, torch.Tensor) and image.ndim == 3:
        values = image.detach().cpu().permute(1, 2, 0)
        if values.dtype == torch.uint8:
            return values.numpy()
        if values.is_floating_point():
            if not (values.min() >= 0 and values.max() <= 1):
                low, high = float(values.min()), float(values.max())
                raise DataError(
                    f"{where}: its values reach from {low:.3g} to {high:.3g}; a float image must lie in [0, 1]: "
                    "leave the normalisation out, automc does it"
                )
            return (values.double() * 255).round().to(torch.uint8).numpy()
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
        return image[..., None] if image.ndim == 2 else image
    kind = f"{type(image).__name__} {getattr(image, 'dtype', '')} {tuple(getattr(image, 'shape', ()))}"
    raise DataError(
        f"{where}: an image must be a PIL image, a uint8 array (height x width x channels), or a uint8 tensor or a "
        f"float tensor in [0, 1] (channels x height x width); got {kind}"
    )


def _stack(parts: dict[str, list[tuple[str, Pixels]]]) -> dict[str, Pixels]:
    """The images of each part as one array; grey images among colour ones are repeated in three channels."""
    everything = [image for images in parts.values() for image in images]
    channels = max(pixels.shape[2] for _, pixels in everything)
    first_name, first = everything[0]
    for name, pixels in everything:
        if pixels.shape[:2] != first.shape[:2] or pixels.shape[2] not in (1, channels):
            raise DataError(
                f"{name} is {_size(pixels)} but {first_name} is {_size(first)}; all images must have one size"
            )
    return {
        part: np.stack(
            [np.repeat(pixels, channels, 2) if pixels.shape[2] < channels else pixels for _, pixels in images]
        )
        for part, images in parts.items()
    }


def _size(pixels: Pixels) -> str:
    height, width, channels = pixels.shape
    return f"{width} x {height} pixels of {channels} channel{'s' if channels > 1 else ''}"


def _statistics(pixels: Pixels, where: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, for pixels in [0, 1]."""
    counts = [np.bincount(pixels[..., channel].ravel(), minlength=256) for channel in range(pixels.shape[3])]
    levels = np.arange(256) / 255
    mean = [float(np.average(levels, weights=count)) for count in counts]
    std = [float(np.average((levels - m) ** 2, weights=count) ** 0.5) for m, count in zip(mean, counts, strict=True)]
    if not all(std):
        raise DataError(f"{where}: a channel has the same value in all training images")
    return tuple(mean), tuple(std)
