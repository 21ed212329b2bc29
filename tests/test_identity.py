"""What a run's folder says it holds."""

from pathlib import Path

import pytest

from automc.errors import CorruptFile, RunMismatch
from automc.search.identity import identify, is_run, runs_below


def begun(folder: Path) -> Path:
    """A run whose first study has a log."""
    identify(folder, {"searcher": "ppo", "seed": 0})
    (folder / "env" / "ppo-0").mkdir(parents=True)
    (folder / "env" / "ppo-0" / "trials.log").touch()
    return folder


def test_a_run_that_has_begun_is_not_mixed_with_another(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    identify(run, {"searcher": "ppo", "seed": 0})
    with pytest.raises(RunMismatch, match="seed: was 0, is 1"):
        identify(run, {"searcher": "ppo", "seed": 1})
    assert is_run(run)
    assert runs_below(tmp_path) == [run]


def test_a_run_that_was_refused_before_it_began_may_become_another(tmp_path: Path) -> None:
    identify(tmp_path, {"seed": 0})
    identify(tmp_path, {"seed": 1})
    begun(tmp_path)
    with pytest.raises(RunMismatch, match="seed: was 0, is 2"):
        identify(tmp_path, {"seed": 2})


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (begun(tmp_path) / "run.json").write_text("{")
    with pytest.raises(CorruptFile, match="does not say what this run is"):
        identify(tmp_path, {"seed": 0})
