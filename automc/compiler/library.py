"""A compiled program, loaded: runs images, and times itself."""

from __future__ import annotations

import ctypes
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automc.compiler.isa import ALIGNMENT
from automc.compiler.sources import STATUS
from automc.compression.interpreter import check_pixels
from automc.compression.program import Program
from automc.errors import DataError, RunnerError

_GUARD_BYTES = 64
_GUARD = 0xA5
_SAMPLE_SECONDS = 50e-6  # a sample shorter than this would mostly time the clock

Sampler = Callable[[int, int], NDArray[np.float64]]  # repeats and loops to seconds


def open_code(path: Path) -> ctypes.CDLL:
    """The code of a shared library. Raises `RunnerError` where it cannot be loaded."""
    # The loader knows what it has loaded by its path, and would answer with an older library of the same place.
    with tempfile.TemporaryDirectory() as folder:
        alias = Path(folder) / path.name
        try:
            alias.symlink_to(path.resolve())
            return ctypes.CDLL(str(alias))
        except OSError as error:
            raise RunnerError(f"{path} cannot be loaded: {error}") from error


class Library:
    """One program of a shared library, with an arena of its own; not for several threads at once.

    Raises `RunnerError` where the library has no such program, or the processor lacks what it was compiled for.
    """

    def __init__(self, code: ctypes.CDLL, prefix: str, program: Program, arena_bytes: int) -> None:
        self.program = program
        self._arena = _Guarded(arena_bytes)
        self._loops: dict[int, int] = {}  # runs in one sample: of an operation by its number, of all of them by -1
        self._logits = _Guarded(4 * program.outputs)
        try:
            names = ("init", "input", "invoke_range", "output")
            init, *functions = (getattr(code, f"{prefix}_{name}") for name in names)
            self._run, self._time, self._time_operation = (
                getattr(code, f"automc_{name}") for name in ("run", "time", "time_operation")
            )
        except AttributeError as error:
            raise RunnerError(f"the library does not hold {program.name}: {error}") from error
        for function in (self._run, self._time, self._time_operation):
            function.restype = None
        self._input, self._range, self._output = (ctypes.cast(function, ctypes.c_void_p) for function in functions)
        status = init(self._arena.address)
        if status != 0:
            reason = STATUS.get(status, f"init answered {status}")
            raise RunnerError(f"the library of {program.name} cannot run here: {reason}")
        if hasattr(code, f"{prefix}_release"):  # of several threads
            weakref.finalize(self, _release, getattr(code, f"{prefix}_release"), self._arena)

    @property
    def operations(self) -> int:
        """How many operations there are, the quantisation of the image included."""
        return len(self.program.operations)

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The logits, `n x outputs`, of images `n x height x width x channels`.

        Raises `DataError` for other images, `RunnerError` if the library wrote where it may not.
        """
        check_pixels(self.program, pixels)
        images = np.ascontiguousarray(pixels)
        logits = _Guarded(4 * self.program.outputs * len(images))
        self._run(
            self._arena.address, self._input, self._range, self._output, self.operations - 1,
            images.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(len(images)),
            ctypes.c_int64(self.program.input.size), logits.address, ctypes.c_int64(self.program.outputs),
        )  # fmt: skip
        self._check(logits)
        return logits.content.view(np.float32).reshape(len(images), self.program.outputs).copy()

    def time(self, pixels: NDArray[np.uint8], repeats: int) -> NDArray[np.float64]:
        """Seconds of the thread's CPU time for one image, `height x width x channels`, `repeats` times.

        Where several threads compute, seconds on the clock. Of several images, the first is taken. Raises `DataError`
        for other images, and for none.
        """
        image = self._one_image(pixels)

        def sample(repeats: int, loops: int) -> NDArray[np.float64]:
            samples = np.empty(repeats)
            self._time(
                self._arena.address, self._input, self._range, self._output, self.operations - 1, image,
                self._logits.address, ctypes.c_int64(repeats), ctypes.c_int64(loops),
                samples.ctypes.data_as(ctypes.c_void_p),
            )  # fmt: skip
            return samples

        return self._sampled(-1, sample, repeats)

    def layer_times(self, pixels: NDArray[np.uint8], repeats: int) -> NDArray[np.float64]:
        """Seconds of each operation in the order of the program, `repeats x operations`, as in `time`."""
        return np.stack([self.operation_times(pixels, each, repeats) for each in range(self.operations)], axis=1)

    def operation_times(self, pixels: NDArray[np.uint8], operation: int, repeats: int) -> NDArray[np.float64]:
        """Seconds of one operation by its position in the program, as in `time`; the arena is as it was left."""
        image = self._one_image(pixels)

        def sample(repeats: int, loops: int) -> NDArray[np.float64]:
            samples = np.empty(repeats)
            self._time_operation(
                self._arena.address, self._input, self._range, operation, image, ctypes.c_int64(repeats),
                ctypes.c_int64(loops), samples.ctypes.data_as(ctypes.c_void_p),
            )  # fmt: skip
            return samples

        return self._sampled(operation, sample, repeats)

    def _one_image(self, pixels: NDArray[np.uint8]) -> Any:
        images = pixels[None] if pixels.ndim == 3 else pixels
        check_pixels(self.program, images)
        if len(images) == 0:
            raise DataError(f"{self.program.name} is timed on an image. Got none instead.")
        self._image = np.ascontiguousarray(images[:1])  # kept alive for the calls that read it
        return self._image.ctypes.data_as(ctypes.c_void_p)

    def _sampled(self, key: int, sample: Sampler, repeats: int) -> NDArray[np.float64]:
        if key not in self._loops:
            loops = 1
            # The clock itself takes as long as many small kernels, so one run does not tell how many are needed.
            while (missing := _SAMPLE_SECONDS / max(loops * float(sample(3, loops).min()), 1e-9)) > 1:
                loops = int(np.ceil(loops * min(missing, 10)))
            self._loops[key] = loops
        return sample(repeats, self._loops[key])

    def _check(self, logits: _Guarded) -> None:
        for name, memory in (("arena", self._arena), ("output", logits)):
            if not memory.intact:
                raise RunnerError(f"the library of {self.program.name} wrote outside its {name}")


def _release(function: Any, arena: _Guarded) -> None:
    function(arena.address)


class _Guarded:
    """Aligned memory between two guards whose bytes tell when somebody wrote on them."""

    def __init__(self, size_bytes: int) -> None:
        self._memory = np.full(size_bytes + 2 * _GUARD_BYTES + ALIGNMENT, _GUARD, np.uint8)
        start = -self._memory.ctypes.data % ALIGNMENT + _GUARD_BYTES
        self.content = self._memory[start : start + size_bytes]
        self._guards = (self._memory[:start], self._memory[start + size_bytes :])

    @property
    def address(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.content.ctypes.data)

    @property
    def intact(self) -> bool:
        return all(bool((guard == _GUARD).all()) for guard in self._guards)
