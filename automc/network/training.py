"""Training a dense network from nothing, resumable epoch by epoch: how the weights beside `envs/` were made."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from automc.errors import CorruptFile, RunMismatch
from automc.files import canonical_json, write_atomic
from automc.network.datasets import Images
from automc.network.tasks import loss
from automc.reporting import Report
from automc.schema import TrainingSpec

STATE_NAME = "state.safetensors"
_BATCH = 250  # images asked at once


def normalise(pixels: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """`n x h x w x c` uint8 pixels as the `n x c x h x w` float32 tensor that a network sees."""
    scaled = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float().div_(255)
    shape = (1, -1, 1, 1)
    scaled.sub_(torch.tensor(mean).view(shape)).div_(torch.tensor(std).view(shape))
    # A copy, because one channel last is also one channel first, and the network would go on with the former's strides.
    return scaled.clone(memory_format=torch.contiguous_format)


def augment(images: Images, crop: int, flip: bool, random: np.random.Generator) -> Images:
    """Shift each image by up to `crop` pixels (zeros come in) and mirror half of them; targets move with them."""
    count, height, _, _ = images.pixels.shape
    rows, columns = random.integers(0, 2 * crop + 1, (2, count)) if crop else np.zeros((2, count), np.int64)
    mirrored = random.integers(0, 2, count, dtype=np.uint8).astype(bool) if flip else np.zeros(count, bool)

    def moved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        factor = pixels.shape[1] // height  # a target may be larger than its image
        shifted = _shifted(pixels, factor * rows, factor * columns, factor * crop) if crop else pixels
        flipped = np.where(mirrored[:, None, None, None], shifted[:, :, ::-1], shifted) if flip else shifted
        return np.ascontiguousarray(flipped)

    targets = None if images.targets is None else moved(images.targets)
    return Images(moved(images.pixels), images.labels, targets)


def _shifted(
    pixels: NDArray[np.uint8], rows: NDArray[np.int64], columns: NDArray[np.int64], margin: int
) -> NDArray[np.uint8]:
    count, height, width, _ = pixels.shape
    padded = np.pad(pixels, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    shifted: NDArray[np.uint8] = windows[np.arange(count), rows, columns].transpose(0, 2, 3, 1)
    return shifted


def batch_of(order: NDArray[np.int64], step: int, size: int) -> NDArray[np.int64]:
    """The images of a step. The last batch is never one alone: a batch norm would have nothing to normalise it by."""
    start = step * size
    return order[min(start, max(0, len(order) - 2)) : start + size]


@torch.inference_mode()
def ask(
    module: nn.Module, pixels: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]
) -> NDArray[np.float32]:
    """What `module` answers to `n x h x w x c` pixels: `n x outputs`, images in the order height, width, channels."""
    module.eval()
    parts = []
    for start in range(0, len(pixels), _BATCH):
        answers = module(normalise(pixels[start : start + _BATCH], mean, std))
        if answers.ndim == 4:
            answers = answers.permute(0, 2, 3, 1)
        parts.append(answers.reshape(len(answers), -1).numpy())
    return np.concatenate(parts)


def train(
    module: nn.Module,
    images: Images,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    recipe: TrainingSpec,
    folder: Path,
    report: Report,
    judge: Callable[[nn.Module], str],
) -> None:
    """Train `module` on `images` towards what their task asks for, reporting what `judge` says of it after every epoch.

    The state after each epoch is kept in `folder`, so that the same call goes on where a killed one stopped and ends
    with the same weights. Raises `RunMismatch` where `folder` holds the state of another training, `CorruptFile` where
    that cannot be read.
    """
    layout = fastest_layout(module, images, mean, std)
    module.to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = _OPTIMIZERS[recipe.optimizer](module, recipe)
    identity = _identity(module, images, mean, std, recipe)
    first = _restore(module, optimizer, identity, folder)
    steps = math.ceil(len(images) / recipe.batch_size)
    for epoch in range(first, recipe.epochs):
        started = time.perf_counter()
        # Generators anew in each epoch: a resumed training draws what an uninterrupted one would have drawn.
        random = np.random.default_rng((recipe.seed, epoch))
        order = random.permutation(len(images))
        module.train()
        losses = 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed * 100_003 + epoch)  # for networks that draw themselves, as dropout does
            for step in range(steps):
                batch = images.take(batch_of(order, step, recipe.batch_size))
                batch = augment(batch, recipe.crop, recipe.flip, random)
                inputs = normalise(batch.pixels, mean, std)
                for group in optimizer.param_groups:
                    group["lr"] = _learning_rate(recipe, epoch + step / steps)
                with _bfloat16(module) if recipe.bfloat16 else contextlib.nullcontext():
                    answers = module(inputs.contiguous(memory_format=layout))
                wrong = loss(answers.float(), batch)
                optimizer.zero_grad(set_to_none=True)
                wrong.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses += wrong.item()
        _store(module, optimizer, identity, folder, epoch + 1)
        report(
            f"epoch {epoch + 1}/{recipe.epochs}  loss {losses / steps:.4g}  {judge(module)}  "
            f"{time.perf_counter() - started:.0f} s"
        )
    module.eval()


@contextlib.contextmanager
def _bfloat16(module: nn.Module) -> Iterator[None]:
    """Convolutions in bfloat16, but strided grouped ones in float32.

    For the gradients of their inputs in bfloat16 oneDNN has only its reference: 96 channels at stride 2 take twenty
    times as long as in float32, a third of MobileNetV2's whole step.
    """

    def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        torch.set_autocast_enabled("cpu", False)
        return tuple(tensor.float() for tensor in inputs)

    def after(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        torch.set_autocast_enabled("cpu", True)
        return output.bfloat16()

    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autocast("cpu", torch.bfloat16))  # restores what was set before, whatever happens
        for part in module.modules():
            if isinstance(part, nn.Conv2d) and part.groups > 1 and max(part.stride) > 1:
                stack.callback(part.register_forward_pre_hook(before).remove)
                stack.callback(part.register_forward_hook(after).remove)
        yield


@torch.inference_mode()
def fastest_layout(
    module: nn.Module, images: Images, mean: tuple[float, ...], std: tuple[float, ...]
) -> torch.memory_format:
    """Channels last, unless the network asks for views that only the usual layout allows."""
    probe = copy.deepcopy(module).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sample = normalise(images.pixels[:2], mean, std).contiguous(memory_format=torch.channels_last)
    try:
        probe(sample)
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last


def _sgd(module: nn.Module, recipe: TrainingSpec) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        module.parameters(), lr=0.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )


def _adam(module: nn.Module, recipe: TrainingSpec) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); the momentum is its beta_1.

    The squared errors of images and their gradients are so small that a rate of SGD which moves a network at all from
    where it starts depends on its size, its depth, and how it was initialised.
    """
    betas = (recipe.momentum, 0.999)
    return torch.optim.AdamW(module.parameters(), lr=0.0, betas=betas, weight_decay=recipe.weight_decay)


_OPTIMIZERS: Mapping[str, Callable[[nn.Module, TrainingSpec], torch.optim.Optimizer]] = {"sgd": _sgd, "adam": _adam}


def _learning_rate(recipe: TrainingSpec, progress: float) -> float:
    if progress < recipe.warmup_epochs:
        return recipe.learning_rate * (progress + 0.01) / recipe.warmup_epochs
    done = (progress - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1e-9)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _identity(
    module: nn.Module, images: Images, mean: tuple[float, ...], std: tuple[float, ...], recipe: TrainingSpec
) -> dict[str, str]:
    """What a stored state belongs to; images matter most, since those that are held out must never be trained on."""
    seen = hashlib.sha256()
    images.feed(seen)
    return {
        "recipe": recipe.model_dump_json(),
        "network": canonical_json([[name, list(value.shape)] for name, value in module.state_dict().items()]),
        "images": seen.hexdigest(),
        "normalisation": canonical_json([mean, std]),
    }


def _store(
    module: nn.Module, optimizer: torch.optim.Optimizer, identity: dict[str, str], folder: Path, epochs: int
) -> None:
    from safetensors.torch import save

    tensors = {f"module.{name}": value.contiguous() for name, value in module.state_dict().items()}
    for name, parameter in module.named_parameters():
        for part, value in optimizer.state[parameter].items():
            tensors[f"{part}.{name}"] = value.contiguous()
    # One file, so that no crash can leave tensors and the count of epochs from different moments.
    write_atomic(folder / STATE_NAME, save(tensors, identity | {"epochs": str(epochs)}))


def _restore(module: nn.Module, optimizer: torch.optim.Optimizer, identity: dict[str, str], folder: Path) -> int:
    """Load the last finished epoch's state, if there is one, and return how many epochs it has seen."""
    from safetensors import SafetensorError, safe_open

    path = folder / STATE_NAME
    if not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as stored:
            metadata = dict(stored.metadata())
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, TypeError) as error:
        raise CorruptFile(f"{path} is not a state of a training: {error}") from error
    if other := [part for part in identity if metadata.get(part) != identity[part]]:
        raise RunMismatch(
            f"{path} belongs to a training with another {', '.join(other)}; remove it or choose another folder"
        )
    module.load_state_dict({k.removeprefix("module."): v for k, v in tensors.items() if k.startswith("module.")})
    parameters = dict(module.named_parameters())
    for key, value in tensors.items():
        part, _, name = key.partition(".")
        if part != "module":
            optimizer.state[parameters[name]][part] = value
    return int(metadata["epochs"])
