"""The command line as a person meets it: what it prints, what it refuses, and its exit codes."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from automc.__main__ import app
from automc.catalog import own_folder
from automc.commands.specs import read_environment
from automc.compiler.targets import TARGETS
from automc.cost.table import write_table
from automc.environment.quality import _REGISTRY
from automc.network.trace import trace
from automc.network.zoo import build_network
from tests.problems import macs_table


def write_env(folder: Path, name: str, text: str) -> None:
    (folder / "envs").mkdir(exist_ok=True)
    (folder / "envs" / f"{name}.yaml").write_text(text)


DIGITS = (own_folder() / "envs" / "resnet8_digits.yaml").read_text()


def test_help_imports_neither_torch_nor_gymnasium():
    """The modules that a help text needs are counted, because time on a busy machine says nothing."""
    code = """
import runpy, sys
sys.argv = ["automc", "--help"]
try:
    runpy.run_module("automc", run_name="__main__")
except SystemExit:
    pass
print(sorted({"torch", "gymnasium", "numpy", "pydantic", "optuna"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "automc run quickstart" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "quickstrat"), "Did you mean 'quickstart'?"),
        (("run", "quickstart", "trails=3"), "unknown field 'trails'. Did you mean 'trials'?"),
        (("run", "quickstart", "env.goal.reward=best"), "'amc', 'mnasnet', 'absolute' or 'fastest'"),
        (("run", "quickstart", "goal.reward=fastest"), "a field of its environments is env.goal"),
        (("run", "resnet8_digits", "--seed", "99999999999"), "seeds.0: Input should be less than 4294967296"),
        (("run", "quickstart", "--time", "10"), "must be a number and a unit"),
        (("run", "quickstart", "--only", "3/2"), "only must be K/N"),
        (("run", "quickstart", "--searcher", "random"), "searchers=[random]"),
        (("run", "resnet8_digits", "--searcher", "pppo"), "Did you mean 'ppo'?"),
        (("run", "resnet8_digits", "--weights", "none.safetensors"), "'none.safetensors' does not exist"),
        (("run", "resnet20_cifar10"), "automc data get cifar10"),
        (("doctor", "resnet8_digit"), "Did you mean 'resnet8_digits'?"),
        (("apply", "resnet8_digits", "none.json"), "cannot read the policy none.json: No such file or directory; a "),
        (("apply", "resnet8_digits", "unifrm:1,8,8"), "a policy is a JSON file or uniform:KEEP_RATIO,WEIGHT_BITS,"),
        (("apply", "resnet8_digits", "uniform:2,8,8"), "uniform:KEEP_RATIO,WEIGHT_BITS,ACTIVATION_BITS"),
        (("compile", "nowhere"), "there is no program at nowhere"),
        (("verify", "nowhere"), "there is no library at nowhere; automc run and automc compile write one"),
        (("report", "nowhere"), "no run at nowhere"),
        (("list", "enfs"), "Did you mean 'envs'?"),
        (("list", "envs", "--clear"), "--clear goes with"),
        (("check", "resnet8_digts"), "Did you mean 'resnet8_digits'?"),
        (("data", "get", "cifar100"), "Did you mean 'cifar10'?"),
        (("data", "get", "digits"), "the data set 'digits' needs no fetching; cifar10 and fashion_mnist do"),
        (("data", "put", "cifar10"), "the only action is 'get'"),
        (("measure", "resnet8_digits", "--target", "avx3"), "Did you mean 'avx2'?"),
        (("measure", "resnet8_digits", "--device", "pi4"), "--runner 'scp {program} pi4:bench && ssh pi4 ./bench'"),
        (
            ("measure", "resnet8_digits", "--device", "my pi", "--target", "neon", "--runner", "{program}"),
            "--device: 'my pi' cannot be the name of a file",
        ),
        (("bench", "nowhere", "--device", "../pi4"), "--device: '../pi4' cannot be the name of a file"),
        (("energy", "nowhere", "--trace", "meter.csv"), "--trace and --inferences go together"),
        (("energy", "nowhere", "--out", "board.csv"), "name that table"),
        (("energy", "nowhere"), "there is no library at nowhere"),
        (("bench", "nowhere"), "there is no library at nowhere"),
        (("bench", "nowhere", "--load", "inf"), "--load"),
        (("bench", "nowhere", "--load", "nan"), "Invalid value for '--load'"),
        (("energy", "nowhere", "--seconds", "nan"), "Invalid value for '--seconds'"),
        (("energy", "nowhere", "--seconds", "inf"), "'--seconds': must be a finite number. Got inf"),
        (("measure", "nowhere", "--minutes", "inf"), "'--minutes': must be a finite number. Got inf"),
        (("measure", "nowhere", "--timeout", "inf"), "'--timeout': must be a finite number. Got inf"),
        (("tune", "nowhere", "uniform:1,8,8", "--epochs", "nan"), "Invalid value for '--epochs'"),
        (("tune", "nowhere", "uniform:1,8,8", "--epochs", "inf"), "'--epochs': must be a finite number. Got inf"),
        (("--plugin", "no_such_module", "list"), "no such module"),
        (("--plugin", "no_such.module", "list"), "no such module"),
        (("--plugin", "", "list"), "its name is empty"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_gets_one_message_and_exit_code_2(automc, arguments, message):
    code, _, errors = automc(*arguments)
    assert message in " ".join(errors.split())
    assert "Traceback" not in errors
    assert code == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("network: resnet8", "network: resnet9", "Did you mean 'resnet8'?"),
        ("name: digits", "name: digit", "Did you mean 'digits'?"),
        ("weights: resnet8_digits.safetensors", "weights: gone.safetensors", "gone.safetensors"),
        ("search_space: joint", "search_space: joints", "Did you mean 'joint'?"),
        ("device: host", "device: my_board", "no 'my_board' in latency_tables/"),
        ("  search: 300", "  search: 30000", "30000"),
        ("  search: 300", "  search: 300\n  search: 300", "'search' appears twice"),
    ],
)
def test_faults_of_an_environment_are_told_before_any_time_is_spent(automc, tmp_path, old, new, message):
    assert old in DIGITS
    write_env(tmp_path, "mine", DIGITS.replace(old, new))
    (tmp_path / "envs" / "resnet8_digits.safetensors").write_bytes(
        (own_folder() / "envs" / "resnet8_digits.safetensors").read_bytes()
    )
    code, _, errors = automc("run", "mine")
    assert message in " ".join(errors.split())
    assert code == 2
    assert not list((tmp_path / "runs").glob("*/*/*/trials.log"))


def test_check_names_every_faulty_file(automc, tmp_path):
    assert automc("check")[0] == 0
    write_env(tmp_path, "one", "description: x\n")
    write_env(tmp_path, "two", "a: 1\na: 2\n")
    code, output, errors = automc("check")
    assert code == 2
    assert "envs/one.yaml" in errors
    assert "envs/two.yaml:2:1" in errors
    assert "envs/resnet8_digits: good" in output


def test_check_names_a_file_as_it_was_named(automc, tmp_path):
    write_env(tmp_path, "mine", DIGITS.replace("weights:", "#"))
    assert automc("check", "envs/mine.yaml")[:2] == (0, "envs/mine.yaml: good\n")


def test_check_refuses_what_a_run_would_refuse(automc, tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").write_text(
        "description: x\nenvs: [resnet8_digits]\nsearchers: [random, random]\n"
    )
    code, _, errors = automc("check", "mine")
    assert "mine.yaml:3: searchers: 'random' appears twice" in errors
    assert code == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("network: resnet8", "network: resnet9", ":4: network: no network 'resnet9'. Did you mean 'resnet8'?"),
        ("weights: resnet8_digits", "weights: gone", ":5: weights: {envs}/gone.safetensors does not exist"),
        ("name: digits", "name: digit", ":7: data.name: no data set 'digit'. Did you mean 'digits'?"),
        ("network: resnet8", "network: resnet8\nmetric: acuracy", ":5: metric: no metric 'acuracy'. Did you mean"),
        ("device: host", "device: my_board", ":11: device: no 'my_board' in latency_tables/"),
        ("search_space: joint", "search_space: joints", ":12: search_space: no 'joints' in search_spaces/. Did you"),
    ],
)
def test_check_says_which_file_and_field_names_what_is_not_there(automc, tmp_path, old, new, message):
    assert old in DIGITS
    write_env(tmp_path, "mine", DIGITS.replace(old, new, 1))
    code, _, errors = automc("check", "mine")
    envs = tmp_path / "envs"
    assert f"{envs / 'mine.yaml'}{message.format(envs=envs)}" in errors
    assert code == 2


@pytest.mark.parametrize("command", ["check", "run"])
def test_every_environment_of_an_experiment_is_checked_before_the_first_is_searched(
    automc, tmp_path, monkeypatch, command
):
    monkeypatch.setattr("automc.search.experiment.run_experiment", lambda *given, **named: pytest.fail("searched"))
    write_env(tmp_path, "mine", DIGITS.replace("network: resnet8", "network: resnet9"))
    (tmp_path / "experiments").mkdir()
    file = tmp_path / "experiments" / "two.yaml"
    searchers = "[random, {name: tpe, settings: {a: 1}}]"
    file.write_text(f"description: x\nenvs: [resnet8_digits, mine]\nsearchers: {searchers}\n")
    code, _, errors = automc(command, "two")
    assert f"{file}:2: envs.1: {tmp_path / 'envs' / 'mine.yaml'}:4: network: no network 'resnet9'" in errors
    assert f"{file}:3: searchers: searcher tpe: unknown field 'a'" in errors
    assert code == 2


def test_searchers_are_listed_with_their_settings(automc):
    code, text, _ = automc("list", "searchers")
    assert code == 0
    lines = text.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("tpe "))
    assert lines[place + 1].split(maxsplit=2)[:2] == ["startup_trials:", "20"]
    assert lines[place + 2].split(maxsplit=2) == ["candidates:", "24", "draws that each estimate ranks"]
    assert any(line.startswith('  prior: "sensitivity"') for line in lines)


def test_list_imports_neither_torch_nor_the_searchers_libraries():
    code = """
import runpy, sys
sys.argv = ["automc", "list"]
try:
    runpy.run_module("automc", run_name="__main__")
except SystemExit:
    pass
print(sorted({"torch", "sklearn", "optuna", "stable_baselines3", "matplotlib", "pandas"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_plugins_metric_without_a_docstring_is_listed(automc, tmp_path, monkeypatch):
    (tmp_path / "plain_plugin.py").write_text(
        "from automc.environment.measures import mean_of\n"
        "from automc.environment.quality import register_metric\n"
        "register_metric('plain_metric')(lambda answers: mean_of(answers.outputs.max(1)))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("automc.environment.quality._REGISTRY", dict(_REGISTRY))
    code, output, _ = automc("--plugin", "plain_plugin", "list", "metrics")
    assert code == 0
    assert "plain_metric" in output


def test_list_shows_what_there_is(automc):
    code, output, _ = automc("list")
    assert code == 0
    for name in ("resnet8_digits", "joint", "quickstart", "resnet56", "fashion_mnist", "nsga2", "portable"):
        assert name in output


def test_targets_are_listed_in_columns(automc):
    listed = list(zip(automc("list", "targets")[1].splitlines(), TARGETS.values(), strict=True))
    assert len({line.index(f" {target.description}") for line, target in listed}) == 1
    assert len({line.index(f" {target.paths[0].name} (") for line, target in listed}) == 1


@pytest.mark.parametrize("command", app.registered_commands, ids=lambda command: command.callback.__name__)
def test_every_command_shows_how_it_is_used(command):
    assert re.search(r"\n    Examples?:\n      automc ", command.callback.__doc__)


def test_list_runs_and_cache_of_an_empty_folder(automc):
    assert "automc run quickstart" in automc("list", "runs")[1]
    assert "is empty" in automc("list", "cache")[1]


def test_clearing_the_cache_keeps_the_measured_tables(automc, tmp_path):
    for name in ("zig/a", "tables/host.csv"):
        (tmp_path / "cache" / name).parent.mkdir(parents=True)
        (tmp_path / "cache" / name).write_text("")
    assert automc("list", "cache", "--clear")[0] == 0
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == ["host.csv"]


def test_a_plugin_adds_a_network_and_a_data_set(automc, tmp_path, monkeypatch):
    (tmp_path / "my_plugin.py").write_text(
        "from automc.network.zoo import register_network\n"
        "from automc.network.architectures.resnet import resnet8\n"
        "register_network('my_network', resnet8)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    code, output, _ = automc("--plugin", "my_plugin", "list", "networks")
    assert code == 0
    assert "my_network" in output


def test_the_road_from_a_policy_to_a_verified_library(automc, tmp_path):
    """`apply`, `compile` and `verify` by hand, and a library that was tampered with."""
    (tmp_path / "latency_tables").mkdir()
    code, output, errors = automc("apply", "resnet8_digits", "uniform:0.5,4,7", "device=test_table", "--out", "mine")
    assert code == 2, "a device needs its table"
    network = trace(build_network("resnet8", 10, 1), (1, 8, 8), (0.3,), (0.4,), "resnet8")
    write_table(macs_table(network), tmp_path / "latency_tables" / "test_table.csv")
    code, output, errors = automc("apply", "resnet8_digits", "uniform:0.5,4,7", "device=test_table", "--out", "mine")
    assert code == 0, errors
    assert "selection images" in output
    policy = json.loads((tmp_path / "mine" / "policy.json").read_text())
    assert policy["keep_ratio"]["layer1.0.conv1"] == 0.5
    code, output, _ = automc("compile", "mine", "--target", "portable", "--out", "library", "--explain")
    assert code == 0
    assert "layer1.0.conv1" in output
    code, output, _ = automc("verify", "library", "--images", "20")
    assert code == 0
    assert "0 different" in output
    (tmp_path / "library" / "model.c").write_text("int main(void) { return 0; }")
    code, _, errors = automc("verify", "library")
    assert code == 2
    assert "model.c" in errors


def test_the_log_of_a_training_survives_its_resumption(automc, tmp_path):
    recipe = ("training.epochs=1", "data.search=700", "data.selection=500", "data.calibration=50")
    command = ("train", "resnet8_digits", *recipe, "--out", "mine")
    code, output, errors = automc(*command)
    assert code == 0, errors
    assert output.strip() == str(Path("mine", "resnet8_digits.safetensors"))
    log = (tmp_path / "mine" / "resnet8_digits.log").read_text()
    _, _, epoch, test = log.splitlines()
    assert epoch.startswith("epoch 1/1  loss")
    assert test.startswith("test accuracy")
    assert automc(*command)[0] == 0
    assert (tmp_path / "mine" / "resnet8_digits.log").read_text() == log


def test_tune_works_in_the_background_and_goes_on_here_and_its_recipe_is_a_search_s(automc, tmp_path, monkeypatch):
    (tmp_path / "latency_tables").mkdir()
    network = trace(build_network("resnet8", 10, 1), (1, 8, 8), (0.3,), (0.4,), "resnet8")
    write_table(macs_table(network), tmp_path / "latency_tables" / "test_table.csv")
    given = ("resnet8_digits", "uniform:0.5,4,7", "device=test_table", "finetuning.epochs=0.18", "--out", "tuned")
    code, output, errors = automc("tune", *given, "--epochs", "1000", "--background")  # more than it lives to spend
    assert code == 0, errors
    process = int(re.search(r"kill (\d+)", output)[1])
    state = Path(f"/proc/{process}/stat")
    try:
        assert os.getsid(process) == process  # of its own, so that it outlives this one
        while not (tmp_path / "tuned" / "tuning.txt").exists():
            assert state.read_text().split()[2] != "Z", (tmp_path / "tuned" / "output.txt").read_text()
            time.sleep(0.05)
        code, shown, _ = automc("show", "tuned")
        assert code == 0
        assert shown.split()[:3] == ["trial", "epochs", "quality"]
        assert len(shown.splitlines()) > 1
    finally:
        os.kill(process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # where it was waited for already
            os.waitpid(process, 0)
    (tmp_path / "plugin_of_a_tuning.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    code, output, errors = automc("--plugin", "plugin_of_a_tuning", "tune", *given, "--epochs", "0.3")
    assert code == 0, errors
    code, shown, _ = automc("show", "tuned")
    assert code == 0
    assert shown.startswith((tmp_path / "tuned" / "tuning.txt").read_text())
    assert shown.splitlines()[-1] in output.splitlines()
    *command, out, folder = shlex.split(shown.splitlines()[-1])
    assert command[:4] == ["automc", "--plugin=plugin_of_a_tuning", "run", "resnet8_digits"]
    assert [out, folder] == ["--out", "runs/resnet8_digits_tuned"]
    found, _ = read_environment("resnet8_digits", tuple(command[4:]))
    assert (found.device, found.finetuning.epochs) == ("test_table", 0.18)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--epochs", "0.1"), "a budget of 0.1 epochs is less than one trial"),
        (("finetuning.epochs=0",), "Got 0 instead"),
    ],
)
@pytest.mark.parametrize("background", [(), ("--background",)])
def test_an_impossible_budget_is_refused_before_anything_is_loaded(
    automc, tmp_path, monkeypatch, arguments, message, background
):
    monkeypatch.setattr("automc.commands.tune.open_problem", lambda *given: pytest.fail("loaded"))
    monkeypatch.setattr("automc.commands.tune._detach", lambda *given: pytest.fail("detached"))
    code, _, errors = automc("tune", "resnet8_digits", "uniform:0.5,4,7", *arguments, *background)
    assert message in errors
    assert code == 2


def test_show_of_a_tuning_that_has_not_begun_says_where_its_output_is(automc, tmp_path, monkeypatch):
    monkeypatch.setattr("automc.commands.tune.subprocess.Popen", lambda *given, **named: SimpleNamespace(pid=1))
    code, output, _ = automc("tune", "resnet8_digits", "uniform:0.5,4,7", "--out", "tuned", "--background")
    assert (code, "automc show tuned" in output) == (0, True)
    code, output, _ = automc("show", "tuned")
    assert code == 0
    assert output.startswith(f"tuned: no trial has begun; {Path('tuned', 'output.txt')} says")


def test_tune_in_the_background_says_where_it_cannot_write(automc, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, errors = automc("tune", "resnet8_digits", "uniform:0.5,4,7", "--out", "file/tuned", "--background")
    assert code == 3
    assert "cannot write file/tuned/output.txt" in errors
