"""Fine-tuning a `Program` in its own integer arithmetic, taught by the dense network; resumable."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from automc.compression.descent import Descent
from automc.compression.gradients import gradient_type
from automc.compression.interpreter import check_pixels
from automc.compression.program import Program
from automc.compression.shadow import ShadowWeights
from automc.errors import CorruptFile, RunMismatch, WeightsError
from automc.files import canonical_json, write_atomic
from automc.network.datasets import Images
from automc.network.training import augment, fastest_layout, normalise
from automc.schema import FinetuningSpec

Report = Callable[[str], None]

_STEPS_BETWEEN_STATES = 25


def finetune(
    program: Program,
    images: Images,
    teacher: nn.Module,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    spec: FinetuningSpec,
    folder: Path,
    report: Report,
) -> Program:
    """`program` with integer weights and biases that answer more like `teacher`, and more rightly, on `images`.

    The forward pass is the program's own arithmetic, with straight-through gradients (Bengio et al. 2013); scales,
    zero-points and multipliers stay. The loss is distillation from the dense float network (Hinton et al. 2015, section
    2) and cross-entropy; `Descent` moves the weights, at a rate that rises within the first tenth and falls to zero.
    Whether the result is better than `program` is for the caller to judge, on images that neither has seen.

    Runs on a CUDA device where there is one. The state is kept in `folder`, so that the same call goes on where a
    killed one stopped; on the same CPU it ends with the same program. Raises `RunMismatch` where `folder` holds the
    state of another fine-tuning, `CorruptFile` where it cannot be read, `DataError` for images that the program does
    not take, `WeightsError` where the loss is not finite.
    """
    check_pixels(program, images.pixels)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shadow = ShadowWeights(program, device)
    descent = Descent(shadow)
    ask = _Teacher(teacher, images, mean, std, device)
    path, identity = folder / "finetuning.safetensors", _identity(program, images, teacher, mean, std, spec)
    first = _restore(descent, path, identity)
    steps_an_epoch = math.ceil(len(images) / spec.batch_size)
    total = math.ceil(spec.epochs * steps_an_epoch)
    memory = 1 - 1 / max(1.0, spec.averaging * total)
    losses, right, seen = 0.0, 0, 0
    for step in range(first, total):
        batch = _batch(images, spec, *divmod(step, steps_an_epoch))
        logits = shadow(torch.from_numpy(batch.pixels).to(device).permute(0, 3, 1, 2))
        labels = torch.from_numpy(batch.labels).to(device)
        loss = _loss(logits, labels, ask(batch.pixels) if spec.distillation > 0 else logits, spec)
        if not math.isfinite(loss.item()):
            raise WeightsError(f"fine-tuning: the loss of step {step + 1} is not finite; are the teacher's weights?")
        shadow.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        descent.step(spec.learning_rate * _schedule(spec, step / total), spec.weight_decay, memory)
        losses += loss.item() * len(batch)
        right += int((logits.argmax(1) == labels).sum())
        seen += len(batch)
        if (step + 1) % _STEPS_BETWEEN_STATES == 0 or step + 1 == total:
            _store(descent, path, identity, step + 1)
            report(
                f"fine-tuning: epoch {(step + 1) / steps_an_epoch:.2f}/{spec.epochs:g}  loss {losses / seen:.4f}  "
                f"accuracy on the images it trains on {right / seen:.4f}"
            )
            losses, right, seen = 0.0, 0, 0
    return descent.average()


def _batch(images: Images, spec: FinetuningSpec, epoch: int, step: int) -> Images:
    """Every step draws from generators of its own: a resumed run draws what an uninterrupted one would have drawn."""
    order = np.random.default_rng((spec.seed, epoch)).permutation(len(images))
    chosen = images.take(order[step * spec.batch_size : (step + 1) * spec.batch_size])
    random = np.random.default_rng((spec.seed, epoch, step + 1))
    return augment(chosen, spec.crop, spec.flip, random)


def _schedule(spec: FinetuningSpec, progress: float) -> float:
    """The share of the learning rate: up within the first tenth, then down to zero."""
    falling = 1 - progress if spec.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return min(1.0, 0.01 + progress / 0.1) * falling


class _Teacher:
    """The dense network's logits; they need not be exact."""

    def __init__(
        self, module: nn.Module, images: Images, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
    ) -> None:
        self._layout = fastest_layout(module, images, mean, std)
        self._module = copy.deepcopy(module).eval().to(device).to(memory_format=self._layout)  # type: ignore[call-overload]
        self._mean, self._std, self._device = mean, std, device

    def __call__(self, pixels: NDArray[np.uint8]) -> Tensor:
        inputs = normalise(pixels, self._mean, self._std).to(self._device).contiguous(memory_format=self._layout)
        coarse = gradient_type(self._device)
        with torch.no_grad(), torch.autocast(self._device.type, coarse, enabled=coarse != torch.float32):
            logits: Tensor = self._module(inputs)
        return logits.float()


def _loss(logits: Tensor, labels: Tensor, taught: Tensor, spec: FinetuningSpec) -> Tensor:
    answered, wanted = (F.log_softmax(answer / spec.temperature, 1) for answer in (logits, taught))
    # The square of the temperature keeps the gradients of both terms in proportion (Hinton et al. 2015, section 2).
    distilled = F.kl_div(answered, wanted, reduction="batchmean", log_target=True) * spec.temperature**2
    return spec.distillation * distilled + (1 - spec.distillation) * F.cross_entropy(logits, labels)


def _identity(
    program: Program,
    images: Images,
    teacher: nn.Module,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    spec: FinetuningSpec,
) -> dict[str, str]:
    """What a stored state belongs to: all that decides the result."""
    seen, weights = hashlib.sha256(images.pixels.tobytes()), hashlib.sha256()
    seen.update(images.labels.tobytes())
    for name, value in sorted(teacher.state_dict().items()):
        weights.update(name.encode())
        weights.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return {
        "program": program.fingerprint,
        "images": seen.hexdigest(),
        "teacher": weights.hexdigest(),
        "normalisation": canonical_json([mean, std]),
        "specification": canonical_json(spec.model_dump()),
    }


def _store(descent: Descent, path: Path, identity: dict[str, str], steps: int) -> None:
    from safetensors.torch import save

    # One file, so that no crash can leave tensors and the count of steps from different moments.
    write_atomic(path, save(descent.tensors(), identity | {"steps": str(steps)}))


def _restore(descent: Descent, path: Path, identity: dict[str, str]) -> int:
    """Load the last stored state, if there is one, and return how many steps it has seen."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as stored:
            metadata = stored.metadata()
            other = [part for part in identity if metadata[part] != identity[part]]
            if other:
                raise RunMismatch(
                    f"{path} belongs to a fine-tuning with another {', '.join(other)}; "
                    "remove it or choose another folder"
                )
            descent.restore(stored.get_tensor)
            return int(metadata["steps"])
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise CorruptFile(f"{path} is not a state of a fine-tuning: {error}") from error
