"""Timing kernels on a machine that does other things, too: as ratios to a reference kernel measured in between.

A plain median moves by half in a minute on a shared machine, and a minimum needs luck. The ratio of a kernel's time to
that of a reference of the same kind, taken within a millisecond of it, moves by about one per cent; its median times
the reference's time in the quietest moment is the latency on a machine left alone. What disturbs one kernel hardly
touches another (a neighbour on the same core: the reference by 30 %, long convolutions of 7 bits by 3 %), so only quiet
moments count. They come and go by seconds, and nobody on a virtual machine can see why, so they are waited for.
"""

from __future__ import annotations

import time
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
_QUIET = 1.08  # times the best: a reference that takes longer shares the core with somebody
_NARROW = 0.01  # of the median
_WINDOW = 200  # samples of the reference, about a hundredth of a second
_WARM_UP = 10 * _WINDOW
_BEST = 20  # windows: the machine's best must have lasted so long
_WAIT_SHARE = 10.0  # seconds that may be waited for each that is timed
_MOST_WAIT_SECONDS = 60.0  # in all
_LOOK = 5  # samples of the reference that tell whether a moment is quiet
_PAUSE_SECONDS = 0.002  # between two looks


@dataclass(frozen=True)
class Timing:
    """A latency as a multiple of the reference's: median, interquartile range, number of samples.

    `moment_ms` is what the reference took around the samples that count, in the middle.
    """

    ratio: float
    spread: float
    count: int
    moment_ms: float


class Reference:
    """A small fixed program: what it takes now tells the state of the machine, and `quiet_ms` the machine left alone.

    known_ms: `quiet_ms` of an earlier run on the same machine.
    """

    def __init__(self, target: str, folder: Path, known_ms: float = np.inf) -> None:
        (probe,) = probes_of([REFERENCE], 1)
        (self._library,) = compile_batch([probe.program], target, folder)
        self._pixels = _pixels(self._library)
        self._known_ms = known_ms
        self._waited = 0.0  # seconds
        # Of each window the fifth percentile, as a virtual machine's clock makes lone samples short, and the median.
        self._best, self._middle = np.empty(0), np.empty(0)
        began = time.monotonic()
        self._moments: list[float] = (self._library.time(self._pixels, _WARM_UP) * 1e3).tolist()
        self._timed = time.monotonic() - began

    @property
    def quiet_ms(self) -> float:
        """What it takes in quiet moments, in the middle."""
        self._look_back()
        quiet = self._middle[self._middle <= self._limit_ms]
        return float(np.median(quiet)) if len(quiet) else min(self._known_ms, float(self._middle.min()))

    @property
    def _limit_ms(self) -> float:
        """What it takes at most in quiet moments."""
        self._look_back()
        place = min(_BEST - 1, len(self._best) // 10)
        return _QUIET * float(min(self._known_ms, np.partition(self._best, place)[place]))

    def _look_back(self) -> None:
        if full := len(self._moments) // _WINDOW * _WINDOW:
            windows = np.reshape(self._moments[:full], (-1, _WINDOW))
            self._best = np.append(self._best, np.quantile(windows, 0.05, axis=1))
            self._middle = np.append(self._middle, np.median(windows, axis=1))
            del self._moments[:full]

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

    def was_quiet(self, timing: Timing) -> bool:
        """Whether a timing is one of quiet moments, as far as is known now."""
        return timing.moment_ms <= self._limit_ms

    def _compare(self, sample: Callable[[], NDArray[np.float64]]) -> Timing:
        """The ratios of quiet moments; where too few were quiet, of the quietest."""
        ratios: list[float] = []
        slower: list[float] = []  # of the references before and after each
        for _ in range(_MOST_ROUNDS):
            self._wait()
            began = time.monotonic()
            before = self.now()
            for _ in range(_ROUNDS):
                taken = float(sample()[0])
                after = self.now()
                ratios.append(taken / ((before + after) / 2))
                slower.append(max(before, after))
                before = after
            self._timed += time.monotonic() - began
            moments = np.array(slower)
            quietest = float(np.partition(moments, _ROUNDS - 1)[_ROUNDS - 1])
            counts = moments <= max(self._limit_ms, quietest)
            low, median, high = np.quantile(np.array(ratios)[counts], (0.25, 0.5, 0.75)).tolist()
            # The confidence interval of a median, from the interquartile range (McGill, Tukey and Larsen 1978).
            narrow = 1.57 * (high - low) / np.sqrt(counts.sum()) <= _NARROW * median
            if narrow and quietest <= self._limit_ms:
                break
        return Timing(median, high - low, int(counts.sum()), float(np.median(moments[counts])))

    def _wait(self) -> None:
        """Until a moment is quiet, or waiting has taken its share."""
        began = time.monotonic()
        while np.median([self.now() for _ in range(_LOOK)]) > self._limit_ms:
            waited = time.monotonic() - began
            if self._waited + waited > min(_WAIT_SHARE * self._timed, _MOST_WAIT_SECONDS):
                break
            time.sleep(_PAUSE_SECONDS)
        self._waited += time.monotonic() - began


def _pixels(library: Library) -> NDArray[np.uint8]:
    return np.full((1, *library.program.image_shape), 127, np.uint8)
