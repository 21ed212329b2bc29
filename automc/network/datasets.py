"""Data sets as arrays of uint8 images, and the disjoint splits that a search, a selection and a report use."""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from automc.errors import DataError
from automc.files import cache_directory, not_registered


@dataclass(frozen=True)
class Images:
    """Images with what is known of them.

    `pixels` is `n x height x width x channels` uint8; `labels` is `n` int64, -1 where nobody knows; `targets`, where a
    network answers with images, are those that it should answer, `n x height x width x channels` uint8.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    targets: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8:
            found = f"{self.pixels.dtype} {self.pixels.shape}"
            raise DataError(f"images must be n x height x width x channels of uint8, got {found}")
        if len(self.pixels) != len(self.labels):
            raise DataError(f"{len(self.pixels)} images but {len(self.labels)} labels")
        if self.targets is not None and len(self.pixels) != len(self.targets):
            raise DataError(f"{len(self.pixels)} images but {len(self.targets)} targets")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled(self) -> bool:
        """Whether every image has a label."""
        return bool((self.labels >= 0).all())

    def feed(self, digest: hashlib._Hash) -> None:
        """Add all that is known of the images to a checksum."""
        for array in (self.pixels, self.labels, self.targets):
            if array is not None:
                digest.update(array.tobytes())

    def take(self, index: NDArray[np.int64] | slice) -> Images:
        """The images at `index`, in its order."""
        targets = None if self.targets is None else self.targets[index]
        return Images(self.pixels[index], self.labels[index], targets)


@dataclass(frozen=True)
class Dataset:
    """A named data set with its official training and test images, and the usual normalisation per channel.

    A network sees `(pixel / 255 - mean) / std`. `classes` is empty where a network answers with images. Raises
    `DataError` for a normalisation that is not of the images' channels, or not by finite numbers.
    """

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Images
    test: Images

    def __post_init__(self) -> None:
        channels = self.train.pixels.shape[3]
        for title, values in (("mean", self.mean), ("std", self.std)):
            where = f"{self.name}: {title}"
            if len(values) != channels:
                raise DataError(f"{where} must have a value for each of {channels} channels, got {len(values)}")
            if not all(math.isfinite(value) for value in values):
                raise DataError(f"{where} must be of finite numbers, got {values}")
        if any(value <= 0 for value in self.std):
            raise DataError(f"{self.name}: std must be above 0 for every channel, got {self.std}")


@dataclass(frozen=True)
class Splits:
    """Disjoint images: what may be trained on, what a search sees, what selects its winner, what is reported once.

    `carved_from` names the official part that `search` and `selection` were taken from: `train` where the
    network's own training held them out, `test` for public checkpoints, which know the training images by heart.
    """

    train: Images
    search: Images
    selection: Images
    test: Images
    carved_from: str


def split(dataset: Dataset, search: int, selection: int, carve_from: str = "train", seed: int = 0) -> Splits:
    """Carve `search` and `selection` images out of one official part, shuffled by `seed`; the rest stays whole."""
    source = dataset.train if carve_from == "train" else dataset.test
    if search + selection >= len(source):
        raise DataError(
            f"the search and selection splits ask for {search} + {selection} images, "
            f"but the {carve_from} part of {dataset.name} has {len(source)} and some must remain"
        )
    order = np.random.default_rng(seed).permutation(len(source))
    carved, rest = order[: search + selection], np.sort(order[search + selection :])
    searched, selected, remaining = source.take(carved[:search]), source.take(carved[search:]), source.take(rest)
    if carve_from == "train":
        return Splits(remaining, searched, selected, dataset.test, carve_from)
    return Splits(dataset.train, searched, selected, remaining, carve_from)


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # The 17 grey levels 0..16 become 0..255, so that digits look like every other set of pixels.
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    everything = Images(pixels, bunch.target.astype(np.int64))
    test, train = slice(1297, 1797), slice(0, 1297)  # other writers than the training part, as in its documentation
    names = tuple(str(digit) for digit in range(10))
    return Dataset("digits", names, (0.305,), (0.376,), everything.take(train), everything.take(test))


_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FASHION_CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


def stored_path(name: str) -> Path:
    """Where `automc data get` keeps a downloaded data set."""
    return cache_directory() / "data" / f"{name}.npz"


def _stored(name: str, classes: tuple[str, ...], mean: tuple[float, ...], std: tuple[float, ...]) -> Dataset:
    path = stored_path(name)
    if not path.exists():
        raise DataError(f"{name} is not on this machine yet. Fetch it once with:\n  automc data get {name}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            train = Images(arrays["train_pixels"], arrays["train_labels"])
            test = Images(arrays["test_pixels"], arrays["test_labels"])
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}). Fetch it again with:\n  automc data get {name}") from error
    return Dataset(name, classes, mean, std, train, test)


_REGISTRY: dict[str, Callable[[], Dataset]] = {
    "digits": _digits,
    "cifar10": lambda: _stored("cifar10", _CIFAR10_CLASSES, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "fashion_mnist": lambda: _stored("fashion_mnist", _FASHION_CLASSES, (0.286,), (0.353,)),
}


def register_dataset(name: str, factory: Callable[[], Dataset]) -> None:
    """Make a user's own data set known under `name` (from a `--plugin` module)."""
    _REGISTRY[name] = factory


def dataset_names() -> list[str]:
    """The names that `load_dataset` knows."""
    return sorted(_REGISTRY)


def find_dataset(name: str) -> Callable[[], Dataset]:
    """What loads the data set called `name`. Raises `NameNotFound` with the nearest name."""
    if name not in _REGISTRY:
        raise not_registered("data set", name, dataset_names())
    return _REGISTRY[name]


def load_dataset(name: str) -> Dataset:
    """The data set called `name`.

    Raises `NameNotFound` for an unknown name, `DataError` where it has not been fetched or is damaged.
    """
    return find_dataset(name)()
