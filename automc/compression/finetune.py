"""Fine-tuning a `Program` in its own integer arithmetic, taught by the dense network; resumable."""

from __future__ import annotations

import copy
import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from automc.compression.descent import Descent
from automc.compression.gradients import gradient_type, whole_float32
from automc.compression.interpreter import check_pixels
from automc.compression.normalisation import BatchNorms
from automc.compression.program import Program
from automc.compression.shadow import ShadowWeights
from automc.errors import CorruptFile, RunMismatch, WeightsError
from automc.files import canonical_json, write_atomic
from automc.network.datasets import Images
from automc.network.tasks import distillation, loss
from automc.network.training import augment, batch_of, fastest_layout, normalise
from automc.reporting import Report
from automc.schema import FinetuningSpec

_STEPS_BETWEEN_STATES = 25
_CALIBRATION = 256  # images that batch norms begin with the statistics of


@whole_float32()
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

    The forward pass is the program's own arithmetic, with straight-through gradients (Bengio et al. 2013); scales and
    zero-points stay. For the first part `normalising` of the training, batch norms stand behind the sums; multipliers
    and biases then take them over, and the rest is exactly what is deployed. The loss is distillation from the dense
    float network (Hinton et al. 2015, section 2) and cross-entropy, of images the squared errors; `Descent` moves the
    weights, at a rate that rises within the first tenth and falls to zero. Whether the result is better than `program`
    is for the caller to judge, on images that neither has seen.

    Runs on a CUDA device where there is one, whose sums are exact but where its library transforms convolutions before
    it multiplies; what counts is the result, an integer program, which the caller judges on the CPU. The state is kept
    in `folder`, so that the same call goes on where a killed one stopped; on the same CPU it ends with the same
    program. Raises `RunMismatch` where `folder` holds the state of another fine-tuning, `CorruptFile` where it cannot
    be read, `DataError` for images that the program does not take, `WeightsError` where the loss is not finite.
    """
    check_pixels(program, images.pixels)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ask = _Teacher(teacher, images, mean, std, device)
    state = _State(program, images, spec, device, folder, _identity(program, images, teacher, mean, std, spec))
    total, losses, right, seen = state.total, 0.0, 0, 0
    for step in range(state.steps, total):
        batch = _batch(images, spec, *divmod(step, state.steps_an_epoch))
        answers = state.shadow(torch.from_numpy(batch.pixels).to(device).permute(0, 3, 1, 2)).cpu()
        found = _loss(answers, batch, ask, spec)
        if not math.isfinite(found.item()):
            raise WeightsError(f"fine-tuning: the loss of step {step + 1} is not finite; are the teacher's weights?")
        found.backward()  # type: ignore[no-untyped-call]
        state.move(spec.learning_rate * _schedule(spec, step / total))
        losses += found.item() * len(batch)
        right += int((answers.argmax(1).numpy() == batch.labels).sum())
        seen += len(batch)
        if (step + 1) % _STEPS_BETWEEN_STATES == 0 or step + 1 == total:
            state.store()
            classified = images.targets is None and images.labelled
            accuracy = f"  accuracy on the images it trains on {right / seen:.4f}" if classified else ""
            report(
                f"fine-tuning: epoch {(step + 1) / state.steps_an_epoch:.2f}/{spec.epochs:g}  "
                f"loss {losses / seen:.4g}{accuracy}"
            )
            losses, right, seen = 0.0, 0, 0
    return state.descent.average()


class _State:
    """All that changes while a network is fine-tuned, kept in a file: the weights, their descent, the batch norms.

    Where another run's state is in the folder, raises `RunMismatch`, where it cannot be read, `CorruptFile`.
    """

    def __init__(
        self,
        program: Program,
        images: Images,
        spec: FinetuningSpec,
        device: torch.device,
        folder: Path,
        identity: dict[str, str],
    ) -> None:
        self.steps_an_epoch = math.ceil(len(images) / spec.batch_size)
        self.total = math.ceil(spec.epochs * self.steps_an_epoch)
        self.steps = 0
        self.shadow = ShadowWeights(program, device)
        self.descent = Descent(self.shadow)
        self._spec, self._identity = spec, identity
        self._path, self._folded = folder / "finetuning.safetensors", folder / "folded.safetensors"
        self._norms: BatchNorms | None = None
        self._folds_at = math.floor(spec.normalising * self.total)
        self._restore(torch.from_numpy(images.pixels[:_CALIBRATION]).to(device).permute(0, 3, 1, 2))

    def move(self, rate: float) -> None:
        """One step down the gradients that the shadow has."""
        memory = 1 - 1 / max(1.0, self._spec.averaging * self.total)
        self.descent.step(rate, self._spec.weight_decay, memory)
        if self._norms is not None:
            self._norms.move(rate)
        self.shadow.zero_grad(set_to_none=True)
        self.steps += 1
        if self.steps == self._folds_at and self._norms is not None:
            self._go_on_with(self._norms.folded())
            self.shadow.original.save(self._folded)

    def store(self) -> None:
        """Write the state, so that a killed run loses little."""
        from safetensors.torch import save

        tensors = self.descent.tensors() | ({} if self._norms is None else self._norms.tensors())
        # One file, so that no crash can leave tensors and the count of steps from different moments.
        write_atomic(self._path, save(tensors, self._identity | {"steps": str(self.steps)}))

    def _begin_with_norms(self, pixels: Tensor) -> BatchNorms:
        self._norms = BatchNorms(self.shadow, pixels)
        self.descent = Descent(self.shadow)  # which moves their parameters' averages, too
        return self._norms

    def _go_on_with(self, shadow: ShadowWeights) -> None:
        self.shadow, self._norms = shadow, None
        self.descent = Descent(shadow)

    def _restore(self, pixels: Tensor) -> None:
        """Load the last stored state, if there is one."""
        from safetensors import SafetensorError, safe_open

        if not self._path.exists():
            if self._folds_at > 0:
                self._begin_with_norms(pixels)
            return
        try:
            with safe_open(self._path, "pt") as stored:
                metadata = stored.metadata()
                other = [part for part in self._identity if metadata[part] != self._identity[part]]
                if other:
                    raise RunMismatch(
                        f"{self._path} belongs to a fine-tuning with another {', '.join(other)}; "
                        "remove it or choose another folder"
                    )
                self.steps = int(metadata["steps"])
                if self.steps < self._folds_at:
                    self._begin_with_norms(pixels).restore(stored.get_tensor)
                elif self._folds_at > 0:
                    self._go_on_with(ShadowWeights(Program.load(self._folded), pixels.device))
                self.descent.restore(stored.get_tensor)
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise CorruptFile(f"{self._path} is not a state of a fine-tuning: {error}") from error


def _batch(images: Images, spec: FinetuningSpec, epoch: int, step: int) -> Images:
    """Every step draws from generators of its own: a resumed run draws what an uninterrupted one would have drawn."""
    order = np.random.default_rng((spec.seed, epoch)).permutation(len(images))
    chosen = images.take(batch_of(order, step, spec.batch_size))
    random = np.random.default_rng((spec.seed, epoch, step + 1))
    return augment(chosen, spec.crop, spec.flip, random)


def _schedule(spec: FinetuningSpec, progress: float) -> float:
    """The share of the learning rate: up within the first tenth, then down to zero."""
    falling = 1 - progress if spec.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return min(1.0, 0.01 + progress / 0.1) * falling


class _Teacher:
    """The dense network's answers; logits need not be exact, images would lose their last bits in bfloat16."""

    def __init__(
        self, module: nn.Module, images: Images, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
    ) -> None:
        self._layout = fastest_layout(module, images, mean, std)
        self._module = copy.deepcopy(module).eval().to(device).to(memory_format=self._layout)  # type: ignore[call-overload]
        self._mean, self._std, self._device = mean, std, device
        self._type = gradient_type(device) if images.targets is None else torch.float32

    def __call__(self, pixels: NDArray[np.uint8]) -> Tensor:
        inputs = normalise(pixels, self._mean, self._std).to(self._device).contiguous(memory_format=self._layout)
        with torch.no_grad(), torch.autocast(self._device.type, self._type, enabled=self._type != torch.float32):
            answers: Tensor = self._module(inputs)
        return answers.float()


def _loss(answers: Tensor, batch: Images, ask: _Teacher, spec: FinetuningSpec) -> Tensor:
    """What the teacher and the labels say to a batch's answers; of images without labels, the teacher alone."""
    if batch.targets is not None:  # a program's maps have channels last
        count, height, width, channels = batch.targets.shape
        answers = answers.view(count, height, width, channels).permute(0, 3, 1, 2)
    taught = 1.0 if batch.targets is None and not batch.labelled else spec.distillation
    parts = []
    if taught > 0:
        parts.append(taught * distillation(answers, ask(batch.pixels).cpu(), batch, spec.temperature))
    if taught < 1:
        parts.append((1 - taught) * loss(answers, batch))
    return torch.stack(parts).sum()


def _identity(
    program: Program,
    images: Images,
    teacher: nn.Module,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    spec: FinetuningSpec,
) -> dict[str, str]:
    """What a stored state belongs to: all that decides the result."""
    seen, weights = hashlib.sha256(), hashlib.sha256()
    images.feed(seen)
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
