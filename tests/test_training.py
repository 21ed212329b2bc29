"""Training: it learns, and an interrupted training ends with the weights of an uninterrupted one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from automc.errors import CorruptFile, RunMismatch
from automc.network.datasets import Images, load_dataset
from automc.network.training import ask, augment, batch_of, normalise, train
from automc.schema import TrainingSpec
from tests.networks import MEAN, STD, TinyResidual
from tests.stops import Killed

RECIPE = TrainingSpec(epochs=4, batch_size=64, learning_rate=0.1, warmup_epochs=1, crop=1, flip=False, seed=5)


@pytest.fixture(scope="module")
def images() -> Images:
    return load_dataset("digits").train.take(slice(0, 600))


@pytest.fixture(scope="module")
def held_out() -> Images:
    return load_dataset("digits").train.take(slice(600, 900))


def share_right(module: nn.Module, images: Images) -> float:
    return float((ask(module, images.pixels, MEAN, STD).argmax(1) == images.labels).mean())


def right(module: nn.Module, images: Images) -> str:
    return f"right {share_right(module, images):.4f}"


def trained(
    images: Images, held_out: Images, folder: Path, recipe: TrainingSpec = RECIPE
) -> tuple[nn.Module, list[str]]:
    module = TinyResidual(1)
    lines: list[str] = []
    train(module, images, MEAN, STD, recipe, folder, lines.append, lambda judged: right(judged, held_out))
    return module, lines


@pytest.fixture(scope="module")
def uninterrupted(
    images: Images, held_out: Images, tmp_path_factory: pytest.TempPathFactory
) -> tuple[nn.Module, list[str], Path]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    return *trained(images, held_out, folder), folder


def killed(images: Images, folder: Path, batches: int, recipe: TrainingSpec = RECIPE) -> None:
    """Train until a process would have been killed, while it computes the batch after `batches` ones."""
    module = TinyResidual(1)
    seen = 0

    def count(part: nn.Module, inputs: Any) -> None:
        nonlocal seen
        seen += part.training
        if seen > batches:
            raise Killed

    module.register_forward_pre_hook(count)
    with pytest.raises(Killed):
        train(module, images, MEAN, STD, recipe, folder, lambda line: None, lambda judged: "")


@pytest.mark.parametrize("batches", [0, 6, 10, 25])  # 10 batches make an epoch
def test_resumed_training_ends_with_the_same_weights(
    images: Images, held_out: Images, uninterrupted: tuple[nn.Module, list[str], Path], tmp_path: Path, batches: int
) -> None:
    killed(images, tmp_path, batches)
    module, lines = trained(images, held_out, tmp_path)
    assert len(lines) == 4 - batches // 10
    expected = uninterrupted[0].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in module.state_dict().items())


def test_adam_learns_and_goes_on_where_it_was_killed(images: Images, held_out: Images, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"optimizer": "adam", "learning_rate": 0.01, "epochs": 2})
    whole, _ = trained(images, held_out, tmp_path / "whole", recipe)
    killed(images, tmp_path / "killed", 15, recipe)
    resumed, lines = trained(images, held_out, tmp_path / "killed", recipe)
    assert len(lines) == 1
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())
    assert share_right(whole, held_out) > share_right(TinyResidual(1), held_out) + 0.3


def test_training_learns_and_reports_every_epoch(
    images: Images, held_out: Images, uninterrupted: tuple[nn.Module, list[str], Path]
) -> None:
    module, lines, _ = uninterrupted
    reached = share_right(module, held_out)
    assert reached > 0.6
    assert reached > share_right(TinyResidual(1), held_out) + 0.3
    assert [line.split()[1] for line in lines] == ["1/4", "2/4", "3/4", "4/4"]
    assert f"right {reached:.4f}" in lines[-1]
    assert not module.training


def test_finished_training_is_not_repeated(
    images: Images, held_out: Images, uninterrupted: tuple[nn.Module, list[str], Path]
) -> None:
    module, lines = trained(images, held_out, uninterrupted[2])
    assert lines == []
    expected = uninterrupted[0].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in module.state_dict().items())


def test_another_recipe_is_refused(
    images: Images, held_out: Images, uninterrupted: tuple[nn.Module, list[str], Path]
) -> None:
    recipe = RECIPE.model_copy(update={"learning_rate": 0.05})
    with pytest.raises(RunMismatch, match="belongs to a training with another recipe"):
        trained(images, held_out, uninterrupted[2], recipe)


def test_other_images_are_refused(
    images: Images, held_out: Images, uninterrupted: tuple[nn.Module, list[str], Path]
) -> None:
    """Else a changed split would let the network go on with weights that know the images now held out."""
    with pytest.raises(RunMismatch, match="another images"):
        trained(images.take(slice(1, None)), held_out, uninterrupted[2])


def test_a_damaged_state_is_named(images: Images, held_out: Images, tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"damaged")
    with pytest.raises(CorruptFile, match="is not a state of a training"):
        trained(images, held_out, tmp_path)


def test_global_generators_are_left_alone(images: Images, held_out: Images, tmp_path: Path) -> None:
    module, recipe = TinyResidual(1), RECIPE.model_copy(update={"epochs": 1, "flip": True})
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.random.get_rng_state()
    train(module, images, MEAN, STD, recipe, tmp_path, lambda line: None, lambda judged: "")
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert torch.equal(torch.random.get_rng_state(), torch_state)


def test_no_image_is_left_alone_in_a_batch(images: Images, tmp_path: Path) -> None:
    """Behind 1x1 pixels a batch norm could not normalise it."""
    module = nn.Sequential(nn.Conv2d(1, 4, 8, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 10))
    lines: list[str] = []
    few = images.take(slice(0, 65))
    train(module, few, MEAN, STD, RECIPE, tmp_path, lines.append, lambda judged: "")
    assert len(lines) == RECIPE.epochs
    batches = [batch_of(np.arange(65), step, 64).tolist() for step in (0, 1)]
    assert batches == [list(range(64)), [63, 64]]


def test_in_bfloat16_strided_depthwise_convolutions_stay_in_float32(images: Images, tmp_path: Path) -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, stride=2, groups=4), nn.Conv2d(4, 10, 2), nn.Flatten()
    )  # fmt: skip
    types: list[list[torch.dtype]] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function: Any, kinds: Any, values: Any = (), named: Any = None) -> Any:
            output = function(*values, **(named or {}))
            if function is nn.functional.conv2d:
                types[-1].append(output.dtype)
            return output

    def judge(judged: nn.Module) -> str:
        types.append([])
        share_right(judged, images)
        return ""

    types.append([])
    recipe = RECIPE.model_copy(update={"epochs": 1, "batch_size": 300, "bfloat16": True})
    with Watch():
        train(module, images, MEAN, STD, recipe, tmp_path, lambda _: None, judge)
    low, full = torch.bfloat16, torch.float32
    assert types[0][3:] == [low, full, low] * 2  # after the probe for the fastest layout
    assert set(types[1]) == {full}  # what judges is computed as it will be used
    assert not torch.is_autocast_enabled("cpu")


def test_normalisation() -> None:
    pixels = np.array([[[[0, 255]]]], np.uint8)  # one pixel of two channels
    expected = torch.tensor([[[[-2.0]], [[1.0]]]])
    torch.testing.assert_close(normalise(pixels, (0.5, 0.5), (0.25, 0.5)), expected)


def test_augmentation_shifts_and_mirrors() -> None:
    pixels = np.zeros((200, 5, 5, 1), np.uint8)
    pixels[:, 2, 1] = 9
    images = Images(pixels, np.zeros(200, np.int64))
    moved = augment(images, 1, True, np.random.default_rng(0)).pixels
    assert moved.shape == pixels.shape
    assert (moved.sum((1, 2, 3)) == 9).all()
    places = {(int(row), int(column)) for _, row, column, _ in np.argwhere(moved)}
    assert places == {(row, column) for row in (1, 2, 3) for column in range(5)}
    assert np.array_equal(augment(images, 0, False, np.random.default_rng(0)).pixels, pixels)


def test_targets_move_with_their_images() -> None:
    random = np.random.default_rng(0)
    large = random.integers(0, 256, (50, 8, 8, 1), np.uint8)
    for factor in (1, 2):
        pixels = large[:, ::factor, ::factor]
        moved = augment(Images(pixels, np.zeros(50, np.int64), large), 2, True, random)
        assert not np.array_equal(moved.pixels, pixels)
        assert moved.targets is not None
        # Where both were shifted and mirrored alike, each pixel still stands in its square; what came in is black.
        squares = moved.targets.reshape(50, 8 // factor, factor, 8 // factor, factor, 1)
        assert ((squares == moved.pixels[:, :, None, :, None]).any((2, 4))).all()
