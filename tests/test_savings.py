"""What each choice bought adds up, and `automc explain` prints it for a run's winners."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from automc.choices import LowRank, Uniform
from automc.commands import explain
from automc.commands.explain import explain_command, explained
from automc.compression.policy import Policy
from automc.cost.energy import HOROWITZ
from automc.cost.model import CostModel
from automc.cost.savings import KINDS, Amount, savings
from automc.environment.problem import Problem
from automc.errors import NameNotFound, RunMismatch
from tests.problems import macs_table, tiny_network, tiny_problem
from tests.runs import make_result, write_result

POLICY = Policy(
    keep_ratio={"a": 0.5, "b": 0.25},
    weights={"a": Uniform(weight_bits=4), "dense": LowRank(rank_ratio=0.5, weight_bits=4)},
    activation_bits={"a": 4},
)


def model() -> CostModel:
    network = tiny_network()
    return CostModel(network, replace(macs_table(network), energy=HOROWITZ))


def test_what_the_kinds_of_choices_saved_is_the_whole_difference() -> None:
    priced = model()
    rows = savings(priced, POLICY)
    whole, now = priced.cost(Policy()), priced.cost(POLICY)
    for row in rows:
        for name in vars(row.now):
            saved = sum(getattr(row.saved[kind], name) for kind in KINDS)
            assert getattr(row.dense, name) - getattr(row.now, name) == pytest.approx(saved, abs=1e-12)
    assert sum(row.dense.latency_ms - row.now.latency_ms for row in rows) == pytest.approx(
        whole.latency_ms - now.latency_ms
    )
    assert sum(row.dense.size_bytes for row in rows) == whole.size_bytes
    assert sum(row.now.size_bytes for row in rows) == now.size_bytes


def test_a_choice_is_credited_only_where_it_matters() -> None:
    rows = {row.layer: row for row in savings(model(), Policy(weights={"c": Uniform(weight_bits=4)}))}
    assert rows["c"].saved["weights"].size_bytes == rows["c"].dense.size_bytes - rows["c"].now.size_bytes > 0
    assert rows["c"].saved["channels"] == rows["c"].saved["activations"] == Amount(0, 0, 0)
    assert all(row.saved[kind] == Amount(0, 0, 0) for layer, row in rows.items() if layer != "c" for kind in KINDS)


def test_two_choices_that_help_each_other_share_what_they_save() -> None:
    both = Policy(keep_ratio={"a": 0.5}, weights={"a": Uniform(weight_bits=4)})
    (row,) = (row for row in savings(model(), both) if row.layer == "a")
    alone = [model().layer_prices(Policy(keep_ratio={"a": 0.5}))["a"], model().layer_prices(Policy())["a"]]
    first = alone[1].size_bytes - alone[0].size_bytes
    last = model().layer_prices(Policy(weights=both.weights))["a"].size_bytes - row.now.size_bytes
    assert row.saved["channels"].size_bytes == pytest.approx((first + last) / 2)


def test_the_table_names_every_layer_and_the_sum() -> None:
    lines = explained(model(), POLICY)
    assert [line.split()[0] for line in lines[2:]] == ["image", "a", "b", "c", "pool", "dense", "sum"]
    assert [line.count("mJ") for line in lines[:2]] == [0, 5]
    assert "mJ" not in explained(CostModel(tiny_network(), macs_table(tiny_network())), POLICY)[1]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of the tiny problem."""
    problem: Problem = replace(tiny_problem(pricing=model()), identity={"table": "known"})
    monkeypatch.setattr(explain, "open_problem", lambda *asked, may_measure: problem)
    (tmp_path / "run.json").write_text(json.dumps({"overrides": [], "weights": None}))
    result = make_result(environment="tiny", policy=POLICY, hashes={"table": "known"})
    write_result(result, tmp_path / "tiny" / "winner" / "result.json")
    return tmp_path


def test_a_run_and_its_winner_are_explained_alike(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain_command(run)
    told = capsys.readouterr().out
    assert all(line.rstrip() in told for line in explained(model(), POLICY))
    explain_command(run / "tiny" / "winner")
    assert capsys.readouterr().out == told


def test_prices_of_another_table_are_not_taken_apart(run: Path) -> None:
    write_result(
        make_result(environment="tiny", policy=POLICY, hashes={"table": "another"}),
        run / "tiny" / "winner" / "result.json",
    )
    with pytest.raises(RunMismatch, match="priced by another table"):
        explain_command(run)


def test_a_run_without_a_winner_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"overrides": [], "weights": None}))
    with pytest.raises(NameNotFound, match="has delivered no winner yet"):
        explain_command(tmp_path)
    with pytest.raises(NameNotFound, match="no run at"):
        explain_command(tmp_path / "nothing")
