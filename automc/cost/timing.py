"""Timing kernels on a machine that does other things, too: as ratios to a reference kernel measured in between.

A plain median moves by half in a minute on a shared machine, and a minimum needs luck. The ratio of a kernel's time to
that of a reference of the same kind, taken within a millisecond of it, moves by about one per cent; its median times
the reference's time in the quietest moment is the latency on a machine left alone. Where a neighbour on the same core
slows a reference twice, it slows a network of other operations up to a tenth less, so only quiet moments count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from automc.compiler.artifact import compile_batch
from automc.compiler.library import Library
from automc.cost.kernels import Kernel
from automc.cost.probes import probes_of

REFERENCE = Kernel("convolve", 8, 8, 16, 16, 3, 3, 1, 1, 4, 8)
_ROUNDS = 20  # between looks at how narrow the confidence interval is
_MOST_ROUNDS = 40
_QUIET = 1.15  # times the floor: a reference that takes longer shares the core with somebody
_NARROW = 0.01  # of the median
_WINDOW = 200  # samples of the reference, about a hundredth of a second
_WARM_UP = 10 * _WINDOW


@dataclass(frozen=True)
class Timing:
    """A latency as a multiple of the reference's: median, interquartile range, number of samples."""

    ratio: float
    spread: float
    count: int


class Reference:
    """A small fixed program: what it takes now tells the state of the machine, and `floor_ms` the machine at its best.

    known_floor_ms: the floor of an earlier run on the same machine.
    """

    def __init__(self, target: str, folder: Path, known_floor_ms: float = np.inf) -> None:
        (probe,) = probes_of([REFERENCE], 1)
        (self._library,) = compile_batch([probe.program], target, folder)
        self._pixels = _pixels(self._library)
        self._floor_ms = known_floor_ms
        self._moments: list[float] = (self._library.time(self._pixels, _WARM_UP) * 1e3).tolist()

    @property
    def floor_ms(self) -> float:
        """The lowest that a window's fifth percentile came; a virtual machine's clock makes lone samples too short."""
        full = len(self._moments) // _WINDOW * _WINDOW
        windows = np.reshape(self._moments[:full], (-1, _WINDOW))
        if len(windows):
            self._floor_ms = min(self._floor_ms, float(np.quantile(windows, 0.05, axis=1).min()))
        del self._moments[:full]
        return self._floor_ms

    def now(self) -> float:
        """Milliseconds at this moment."""
        moment = float(self._library.time(self._pixels, 1)[0]) * 1e3
        self._moments.append(moment)
        return moment

    def warm(self, library: Library) -> None:
        """Compute once, so that every operation finds in the arena what it reads."""
        library.run(_pixels(library))

    def time_operation(self, library: Library, operation: int) -> Timing:
        """The timing of one operation of a library by its position in the Program, on what the arena holds now."""
        pixels = _pixels(library)
        return self._compare(lambda: library.operation_times(pixels, operation, 1) * 1e3)

    def time_whole(self, library: Library) -> Timing:
        """The timing of all operations together, as a user calls them."""
        pixels = _pixels(library)
        return self._compare(lambda: library.time(pixels, 1) * 1e3)

    def _compare(self, sample: Callable[[], NDArray[np.float64]]) -> Timing:
        """The ratios of quiet moments; where too few were quiet, of the quietest."""
        ratios: list[float] = []
        moments: list[float] = []  # the slower of the references before and after each
        for _ in range(_MOST_ROUNDS):
            before = self.now()
            for _ in range(_ROUNDS):
                time = float(sample()[0])
                after = self.now()
                ratios.append(time / ((before + after) / 2))
                moments.append(max(before, after))
                before = after
            limit = max(_QUIET * self.floor_ms, float(np.partition(moments, _ROUNDS - 1)[_ROUNDS - 1]))
            quiet = np.array(ratios)[np.array(moments) <= limit]
            low, median, high = np.quantile(quiet, (0.25, 0.5, 0.75)).tolist()
            # The confidence interval of a median, from the interquartile range (McGill, Tukey and Larsen 1978).
            narrow = 1.57 * (high - low) / np.sqrt(len(quiet)) <= _NARROW * median
            if narrow and limit <= _QUIET * self.floor_ms:
                break
        return Timing(median, high - low, len(quiet))


def _pixels(library: Library) -> NDArray[np.uint8]:
    image = library.program.input
    return np.full((1, image.height, image.width, image.channels), 127, np.uint8)
