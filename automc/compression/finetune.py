"""Fine-tuning a `Program` in its own integer arithmetic, taught by the dense network; resumable."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automc.compression.interpreter import check_pixels
from automc.compression.program import Program
from automc.compression.shadow import ShadowWeights
from automc.errors import CorruptFile, RunMismatch, WeightsError
from automc.files import canonical_json, write_atomic
from automc.network.datasets import Images
from automc.network.training import augment, normalise
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
    2) and cross-entropy; the optimiser is SGD with Nesterov momentum, a short warm-up and a cosine to zero, at a rate
    that is relative to the length of each channel's weights. Whether the result is better than `program` is for the
    caller to judge, on images that neither has seen.

    The state is kept in `folder`, so that the same call goes on where a killed one stopped and ends with the same
    program. Raises `RunMismatch` where `folder` holds the state of another fine-tuning, `CorruptFile` where it cannot
    be read, `DataError` for images that the program does not take, `WeightsError` where the loss is not finite.
    """
    check_pixels(program, images.pixels)
    teacher.eval()
    shadow = ShadowWeights(program)
    optimizer = torch.optim.SGD(shadow.parameters(), lr=0.0, momentum=0.9, nesterov=True)
    path, identity = folder / "finetuning.safetensors", _identity(program, images, teacher, mean, std, spec)
    first = _restore(shadow, optimizer, path, identity)
    steps_an_epoch = math.ceil(len(images) / spec.batch_size)
    total = math.ceil(spec.epochs * steps_an_epoch)
    losses, right, seen = 0.0, 0, 0
    for step in range(first, total):
        batch = _batch(images, spec, *divmod(step, steps_an_epoch))
        with torch.inference_mode():
            taught = teacher(normalise(batch.pixels, mean, std))
        # Tensors made in inference mode cannot be saved for a backward pass; a copy can.
        loss, logits = _loss(shadow, batch, taught.clone(), spec)
        if not math.isfinite(loss.item()):
            raise WeightsError(f"fine-tuning: the loss of step {step + 1} is not finite; are the teacher's weights?")
        optimizer.param_groups[0]["lr"] = spec.learning_rate * _schedule(step / total)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        shadow.normalise_gradients()
        optimizer.step()
        shadow.clamp()
        losses += loss.item() * len(batch)
        right += int((logits.argmax(1).numpy() == batch.labels).sum())
        seen += len(batch)
        if (step + 1) % _STEPS_BETWEEN_STATES == 0 or step + 1 == total:
            _store(shadow, optimizer, path, identity, step + 1)
            report(
                f"fine-tuning: epoch {(step + 1) / steps_an_epoch:.2f}/{spec.epochs:g}  loss {losses / seen:.4f}  "
                f"accuracy on the images it trains on {right / seen:.4f}"
            )
            losses, right, seen = 0.0, 0, 0
    return shadow.program()


def _batch(images: Images, spec: FinetuningSpec, epoch: int, step: int) -> Images:
    """Every step draws from generators of its own: a resumed run draws what an uninterrupted one would have drawn."""
    order = np.random.default_rng((spec.seed, epoch)).permutation(len(images))
    chosen = images.take(order[step * spec.batch_size : (step + 1) * spec.batch_size])
    random = np.random.default_rng((spec.seed, epoch, step + 1))
    return Images(augment(chosen.pixels, spec.crop, spec.flip, random), chosen.labels)


def _schedule(progress: float) -> float:
    """The share of the learning rate: up within the first tenth, then a cosine to zero."""
    return min(1.0, 0.01 + progress / 0.1) * 0.5 * (1 + math.cos(math.pi * progress))


def _loss(shadow: ShadowWeights, batch: Images, taught: Tensor, spec: FinetuningSpec) -> tuple[Tensor, Tensor]:
    logits = shadow(torch.from_numpy(batch.pixels).permute(0, 3, 1, 2))
    answered, wanted = (F.log_softmax(answer / spec.temperature, 1) for answer in (logits, taught))
    # The square of the temperature keeps the gradients of both terms in proportion (Hinton et al. 2015, section 2).
    distilled = F.kl_div(answered, wanted, reduction="batchmean", log_target=True) * spec.temperature**2
    labelled = F.cross_entropy(logits, torch.from_numpy(batch.labels))
    return spec.distillation * distilled + (1 - spec.distillation) * labelled, logits.detach()


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
        weights.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return {
        "program": program.fingerprint,
        "images": seen.hexdigest(),
        "teacher": weights.hexdigest(),
        "normalisation": canonical_json([mean, std]),
        "specification": canonical_json(spec.model_dump()),
    }


def _store(shadow: ShadowWeights, optimizer: torch.optim.SGD, path: Path, identity: dict[str, str], steps: int) -> None:
    from safetensors.torch import save

    tensors = {}
    for name, parameter in shadow.named_parameters():
        tensors[name] = parameter.detach().contiguous()
        tensors[f"momentum.{name}"] = optimizer.state[parameter]["momentum_buffer"].contiguous()
    # One file, so that no crash can leave tensors and the count of steps from different moments.
    write_atomic(path, save(tensors, identity | {"steps": str(steps)}))


def _restore(shadow: ShadowWeights, optimizer: torch.optim.SGD, path: Path, identity: dict[str, str]) -> int:
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
            for name, parameter in shadow.named_parameters():
                # Copies keep the layout in memory, on which the last bit of an update may depend.
                parameter.data.copy_(stored.get_tensor(name))
                momentum = torch.empty_like(parameter).copy_(stored.get_tensor(f"momentum.{name}"))
                optimizer.state[parameter]["momentum_buffer"] = momentum
            return int(metadata["steps"])
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise CorruptFile(f"{path} is not a state of a fine-tuning: {error}") from error
