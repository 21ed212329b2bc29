"""`automc.search(model, data)`: from a user's own network and images to a verified library, without files."""

import json

import pytest
import torch

import automc
from automc.compiler.artifact import open_artifact
from automc.cost.table import write_table
from automc.errors import ConfigError, DataError, EvaluationFailed, InfeasibleBudget, NameNotFound, RunMismatch
from automc.network.datasets import load_dataset
from automc.network.trace import trace
from automc.schema import FinetuningSpec, SearcherSpec, SearchSpaceSpec
from automc.search.kept import read_index
from tests.networks import TinyPlain
from tests.problems import macs_table

SPACE = SearchSpaceSpec(description="small", keep_ratio=[0.5, 1.0], weight_bits=[4, 8], activation_bits=[8])


@pytest.fixture
def search(tmp_path, monkeypatch):
    """`automc.search` of a tiny network in an empty folder, with a table of made-up prices."""
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    model, data = TinyPlain(0), load_dataset("digits")
    (tmp_path / "latency_tables").mkdir()
    network = trace(model, (1, 8, 8), data.mean, data.std, "tiny")
    write_table(macs_table(network), tmp_path / "latency_tables" / "paper.csv")

    def search(**changed):
        asked = {
            "device": "paper",
            "search_space": SPACE,
            "searcher": "random",
            "trials": 4,
            "search_images": 50,
            "selection_images": 50,
            "finetuning": FinetuningSpec(epochs=0),
        }
        return automc.search(model, data, **(asked | changed))

    return search


def test_a_search_delivers_and_is_not_mixed_with_another(search, tmp_path):
    result = search(limits={"latency_ms": "60%"})
    assert result.verification.images == 500
    assert result.verification.different_logits == 0
    assert result.delivered.latency_ms <= result.limits["latency_ms"]
    assert result.splits.test == 400
    assert result.splits.carved_from == "test"
    log = (tmp_path / "runs/search/model/random-0/trials.log").read_bytes()
    assert search(limits={"latency_ms": "60%"}) == result
    assert (tmp_path / "runs/search/model/random-0/trials.log").read_bytes() == log
    with pytest.raises(RunMismatch, match="problem: was"):
        search(limits={"latency_ms": "70%"})
    assert json.loads((tmp_path / "runs/search/run.json").read_text())["searcher"] == "random"


def test_images_that_are_held_out_do_not_calibrate(search):
    result = search(carve_from="train", search_images=400, selection_images=400, trials=1)
    assert (result.splits.train, result.splits.carved_from) == (497, "train")


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"device": "papre"}, NameNotFound, "Did you mean 'paper'"),
        ({"search_space": "joints"}, NameNotFound, "Did you mean 'joint'"),
        ({"limits": {"latency_ms": 1e-9}}, InfeasibleBudget, "the lowest reachable is"),
        ({"search_images": 600}, DataError, "600"),
        ({"searcher": "randm"}, NameNotFound, "Did you mean 'random'"),
        ({"trials": 0}, ConfigError, "^automc.search: trials: .*greater than or equal to 1"),
        ({"limits": {"latency_ms": "much"}}, ConfigError, "^automc.search: goal.limits: .*a share of the dense"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_trial(search, tmp_path, changed, error, message):
    with pytest.raises(error, match=message):
        search(**changed)
    assert not list(tmp_path.glob("runs/*/*/*/trials.log"))


def test_a_searchers_settings_a_front_and_an_interruption(search, tmp_path, monkeypatch):
    root = tmp_path / "runs" / "search" / "model"
    asked = {"searcher": SearcherSpec(name="nsga2", settings={"population": 4}), "limits": {"latency_ms": "60%"}}

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("automc.search.deliver.select", interrupted)
        with pytest.raises(KeyboardInterrupt):
            search(**asked)
    kept = read_index(root / "best")
    assert [row["searcher"] for row in kept] == ["nsga2"] * len(kept)
    assert all(open_artifact(root / "best" / row["folder"] / "library").load() for row in kept)
    search(**asked, front=2)
    front = read_index(root / "front")
    assert 0 < len(front) <= 2
    assert all(open_artifact(root / "front" / row["folder"] / "library").load() for row in front)
    with pytest.raises(RunMismatch, match="searcher: was"):
        search(**asked | {"searcher": "nsga2"})


def test_the_time_of_a_search_ends_it(search):
    with pytest.raises(EvaluationFailed, match="no trial was made"):
        search(seconds=0)
