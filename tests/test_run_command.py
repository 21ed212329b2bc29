"""`automc run` as a person meets it: what it asks for, how it ends, and what a run that is stopped leaves."""

import os
import signal
import sys
from pathlib import Path

import pytest

from automc.commands.run import _SETTINGS_FOR_A_FRONT, _load, _specification
from automc.commands.specs import read_environment
from automc.cost.table import write_table
from automc.errors import NameNotFound
from automc.network.trace import trace
from automc.network.zoo import build_network
from automc.search.identity import identify
from automc.search.searchers import check_settings
from automc.search.trials import TrialLog
from tests.problems import macs_table


def test_an_experiment_lays_its_own_overrides_below_those_of_the_command(automc, tmp_path):
    (tmp_path / "experiments").mkdir()
    text = "description: x\nenvs: [resnet8_digits]\nsearchers: [random]\noverrides: [goal.limits.latency_ms=40%, {0}]\n"
    (tmp_path / "experiments" / "mine.yaml").write_text(text.format("data.search=100"))
    given = ("trials=3", "env.goal.limits.latency_ms=50%")
    spec, overrides = _specification("mine", given, None, None, None, None, None, tmp_path)
    assert overrides == ("goal.limits.latency_ms=40%", "data.search=100", "goal.limits.latency_ms=50%")
    assert (spec.trials, spec.front) == (3, 0)
    assert read_environment("resnet8_digits", overrides)[0].goal.limits == {"latency_ms": "50%"}
    assert automc("check", "mine")[0] == 0
    (tmp_path / "experiments" / "mine.yaml").write_text(text.format("data.serch=100"))
    for command in (("check", "mine"), ("run", "mine")):
        code, _, errors = automc(*command)
        assert code == 2
        assert "override 'data.serch=100': unknown field 'data.serch'. Did you mean 'search'" in " ".join(
            errors.split()
        )


def test_a_front_is_asked_for_by_one_word(tmp_path):
    def asked(name, overrides=(), searcher=None, front=None):
        spec, _ = _specification(name, overrides, None, searcher, None, None, front, tmp_path)
        return spec.front, [(one.name, one.settings) for one in spec.searchers]

    assert asked("resnet8_digits") == (0, [("ppo", {})])
    assert asked("resnet8_digits", front=6) == (6, [("ppo", {"least_budget": 0.5})])
    assert asked("resnet8_digits", ("goal.reward=fastest",), front=6) == (6, [("ppo", {"least_budget": 0.5})])
    assert asked("resnet8_digits", ("goal.reward=mnasnet",), front=6) == (6, [("ppo", {})])  # no limit that is kept
    assert asked("resnet8_digits", searcher="nsga2", front=6) == (6, [("nsga2", {"front": True})])
    assert asked("resnet8_digits", searcher="nsga2") == (0, [("nsga2", {})])
    assert asked("resnet8_digits", searcher="random", front=6) == (6, [("random", {})])
    for name, settings in _SETTINGS_FOR_A_FRONT.items():
        assert check_settings(name, settings) != check_settings(name, {})
    assert asked("quickstart", front=6) == asked("quickstart", ("front=6",)) == (6, [("ppo", {})])
    assert asked("resnet20_front", front=3)[0] == 3


@pytest.mark.parametrize(("first", "then"), [(None, 5), (5, None), (5, 3)])
def test_a_front_may_be_asked_of_a_run_that_has_begun(automc, monkeypatch, first, then):
    """And one that was begun for a front goes on without."""
    begun, delivered = [], []

    def search(spec, folder, load, **named):
        begun.append(spec.searchers)
        with TrialLog(folder / "resnet8_digits" / "ppo-0", {"searcher": "ppo", "seed": 0}, pytest.fail):
            pass

    monkeypatch.setattr("automc.search.experiment.run_experiment", search)
    monkeypatch.setattr("automc.commands.run._load", lambda name, overrides, weights, plugins: None)
    monkeypatch.setattr("automc.commands.run._deliver", lambda problem, folder: None)
    monkeypatch.setattr("automc.commands.run._deliver_front", lambda problem, folder, count: delivered.append(count))
    monkeypatch.setattr("automc.commands.run._report", lambda folder: None)
    for front in (first, then):
        code, _, errors = automc("run", "resnet8_digits", *([] if front is None else ["--front", str(front)]))
        assert code == 0, errors
    assert begun[0] == begun[1]
    assert delivered == [front for front in (first, then) if front]
    assert ("begun without --front" in errors) == (first is None)


def test_a_refused_run_leaves_its_folder_to_the_next_one(automc):
    assert "Did you mean 'accuracy'?" in automc("run", "resnet8_digits", "metric=acuracy")[2]
    code, _, errors = automc("run", "resnet8_digits", "network=resnet9")
    assert "Did you mean 'resnet8'?" in errors
    assert code == 2


def test_a_study_in_a_process_of_its_own_imports_the_plugins(automc, tmp_path):
    (tmp_path / "their_plugin.py").write_text("")
    with pytest.raises(NameNotFound, match="no 'nowhere' in envs/"):
        _load("nowhere", (), None, ("their_plugin",))
    assert sys.modules.pop("their_plugin").__file__ == str(tmp_path / "their_plugin.py")


def test_a_run_from_python_says_why_it_cannot_be_explained(automc, tmp_path):
    (tmp_path / "mine" / "model" / "winner").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "winner" / "result.json").write_text("{}")
    identify(tmp_path / "mine", {"problem": "0", "searcher": "ppo", "seed": 0})
    code, _, errors = automc("explain", "mine")
    assert "was searched from Python" in errors
    assert code == 2


def test_ctrl_c_says_that_nothing_is_lost(automc, monkeypatch):
    def interrupted(what, clear):
        raise KeyboardInterrupt

    monkeypatch.setattr("automc.commands.inspect.list_command", interrupted)
    code, _, errors = automc("list")
    assert code == 130
    assert "Nothing that was written is lost" in errors
    assert "Traceback" not in errors


def test_a_run_that_ends_before_its_delivery_keeps_its_best_policies(automc, tmp_path, monkeypatch):
    """Ctrl-C and the signal of job schedulers alike, and a part of an array; `keep_best` has tests of its own."""
    (tmp_path / "latency_tables").mkdir()
    network = trace(build_network("resnet8", 10, 1), (1, 8, 8), (0.3,), (0.4,), "resnet8")
    write_table(macs_table(network), tmp_path / "latency_tables" / "test_table.csv")
    kept, delivered = [], []
    folder = Path("mine", "resnet8_digits")

    def stopped(*arguments, **named):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("automc.search.experiment.run_experiment", stopped)
    monkeypatch.setattr("automc.search.kept.keep_best", lambda problem, folder, report: kept.append(folder))
    monkeypatch.setattr("automc.search.kept.is_delivered", lambda problem, folder: bool(delivered))
    command = ("run", "resnet8_digits", "device=test_table", "--searcher", "random", "--out", "mine")
    code, _, errors = automc(*command)
    assert (code, kept) == (130, [])
    assert "compiling" not in errors, "there is nothing to keep before the first study begins"
    with TrialLog(folder / "random-0", {"searcher": "random", "seed": 0}, pytest.fail):
        pass
    code, _, errors = automc(*command)
    assert (code, kept) == (130, [folder])
    assert "compiling the best policies so far" in errors
    (folder / "winner").mkdir()
    (folder / "winner" / "result.json").write_text("{}")  # of fewer trials
    assert automc(*command)[0] == 130
    assert kept == [folder] * 2
    delivered.append("of these trials")
    assert automc(*command)[0] == 130
    assert kept == [folder] * 2
    delivered.clear()
    monkeypatch.setattr("automc.search.experiment.run_experiment", lambda *arguments, **named: None)
    assert automc(*command, "--only", "1/2")[0] == 0
    assert kept == [folder] * 3
    assert automc(*command, "--only", "2/2")[0] == 0  # a part without a study
    assert kept == [folder] * 3
