"""Which moments of a busy machine count, on a machine that is played."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from automc.cost import timing
from automc.cost.timing import Reference


class Machine:
    """A neighbour slows the reference by 30 % and what is timed by 2 %, until the reference was asked so often."""

    def __init__(self, busy_samples: int) -> None:
        self.left = busy_samples

    def reference(self, repeats: int) -> NDArray[np.float64]:
        busy = np.arange(repeats) < self.left
        self.left -= repeats
        return np.where(busy, 1.3e-6, 1e-6)

    def network(self, repeats: int) -> NDArray[np.float64]:
        return np.full(repeats, 1.02e-5 if self.left > 0 else 1e-5)


def played(take) -> SimpleNamespace:
    return SimpleNamespace(program=SimpleNamespace(image_shape=(1, 1, 1)), time=lambda pixels, repeats: take(repeats))


def on(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Reference:
    monkeypatch.setattr(timing, "compile_batch", lambda *asked: [played(machine.reference)])
    return Reference("portable", Path("nowhere"))


def test_quiet_moments_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The warm-up sees the machine at its best, then the neighbour comes for a while."""
    machine = Machine(0)
    reference = on(machine, monkeypatch)
    machine.left = 60
    monkeypatch.setattr(timing, "_WAIT_SHARE", 1e9)
    found = reference.time_whole(played(machine.network))
    assert found.ratio == pytest.approx(10)
    assert reference.quiet_ms == pytest.approx(1e-3)
    assert reference.was_quiet(found)


def test_a_timing_is_doubted_when_the_machine_turns_out_to_be_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(10**9)
    reference = on(machine, monkeypatch)
    busy = reference.time_whole(played(machine.network))
    assert reference.was_quiet(busy)  # as far as is known
    assert busy.ratio == pytest.approx(10.2 / 1.3)
    machine.left = 0
    for _ in range(1000):
        reference.now()
    assert not reference.was_quiet(busy)
    assert reference.quiet_ms == pytest.approx(1e-3)
    assert reference.time_whole(played(machine.network)).ratio == pytest.approx(10)


def test_a_reference_that_was_never_quiet_for_long_has_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each window has moments at the machine's best, but not in the middle."""
    machine = Machine(0)
    moments = iter(np.resize([1.0] * 20 + [1.3] * 180, 10**5).tolist())
    monkeypatch.setattr(machine, "reference", lambda repeats: np.array([next(moments) for _ in range(repeats)]) * 1e-6)
    assert on(machine, monkeypatch).quiet_ms == pytest.approx(1.3e-3)


def test_waiting_ends_on_a_machine_that_is_always_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(0)
    reference = on(machine, monkeypatch)
    machine.left = 10**9
    monkeypatch.setattr(timing, "_MOST_WAIT_SECONDS", 0.01)
    found = reference.time_whole(played(machine.network))
    assert found.ratio == pytest.approx(10.2 / 1.3)
    assert not reference.was_quiet(found)
