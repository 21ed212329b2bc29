"""What is saved of an agent, when, and where it goes on."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

import tests.problems as problems
from automc.errors import ConfigError, CorruptFile, RunMismatch
from automc.network.graph import Network
from automc.reporting import silent
from automc.schema import GoalSpec, SearcherSpec, SearchSpaceSpec
from automc.search.episodes import Episodes
from automc.search.experiment import study_header
from automc.search.identity import library_versions
from automc.search.searchers import build_searcher
from automc.search.searchers.agent import Agent, load_network
from automc.search.study import Progress, Study
from automc.search.trials import LOG_NAME, TrialLog, read_log
from tests.networks import TinyDepthwise, TinyPlain, TinyResidual, traced
from tests.searches import AGENTS, QUICK, TIGHT, search, tiny

FEWER = SearchSpaceSpec(description="other choices", keep_ratio=[0.5, 1.0], weight_bits=[2, 3, 4, 6, 8])


def train(
    name: str,
    folder: Path,
    seed: int = 1,
    trials: int = 12,
    network: Network | None = None,
    report: Callable[[Progress], None] = silent,
) -> Agent:
    problem = problems.tiny_problem(TIGHT, network=network)
    agent = build_searcher(name, QUICK.get(name, {}), problem, seed)
    Study(folder, {}, agent, lambda policy: problems.formula_outcome(problem, policy), trials, report).run()
    return agent


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_is_saved_without_pickle_and_goes_on_with_another_network(name: str, tmp_path: Path):
    """One that is deeper and has sums, and one with depthwise layers, under another budget and with other choices."""
    from safetensors.torch import load_file

    for folder in ("first", "second"):
        train(name, tmp_path / folder, network=traced(TinyPlain()))
    first, second = ((tmp_path / folder / "agent.safetensors").read_bytes() for folder in ("first", "second"))
    assert first == second
    network = load_network(tmp_path / "first", name)
    assert all((load_file(tmp_path / "first" / "agent.safetensors")[key] == network[key]).all() for key in network)

    for module in (TinyResidual(), TinyDepthwise()):
        other = problems.tiny_problem(GoalSpec(limits={"latency_ms": "60%"}), FEWER, network=traced(module))
        agent = build_searcher(name, {"agent": str(tmp_path / "first")}, other, 0)
        learner = agent.begin(Episodes(other, agent.at_once, lambda rows, shares: rows.sum(1), actions=agent.actions))
        assert all((value == network[key]).all() for key, value in learner.policy.state_dict().items())
        assert len(search(name, 4, other, agent=str(tmp_path / "first"))) == 4


def test_the_card_of_an_agent_says_where_it_has_learned_what(tmp_path: Path):
    agent = train("recurrent_ppo", tmp_path)
    trials = read_log(tmp_path)[1]
    card = json.loads((tmp_path / "agent.json").read_text())
    problem = agent.problem
    assert card["environment"] == card["network"] == "tiny"
    assert (card["device"], card["target"]) == (problem.spec.device, "portable")
    assert GoalSpec(**card["goal"]) == TIGHT
    assert card["limits"] == problem.limits.costs
    assert card["hashes"] == problem.identity
    assert card["trials"] == len(trials) == 12
    assert card["best_reward"] == max(trial.reward for trial in trials)
    assert card["versions"] == library_versions()


def interrupted(name: str, folder: Path, after: int) -> None:
    """A training that Ctrl-C ends after so many trials."""

    def stop(progress: Progress) -> None:
        if progress.trial.number + 1 == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(name, folder, trials=16, report=stop)


@pytest.mark.parametrize("name", AGENTS)
def test_an_interrupted_agent_is_saved_and_ends_as_one_that_was_not(name: str, tmp_path: Path):
    train(name, tmp_path / "whole", trials=16)
    interrupted(name, tmp_path / "twice", 11)
    assert json.loads((tmp_path / "twice" / "agent.json").read_text())["trials"] == 11
    assert load_network(tmp_path / "twice", name)
    train(name, tmp_path / "twice", trials=16)
    for file in (LOG_NAME, "agent.safetensors", "agent.json"):
        assert (tmp_path / "twice" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_replay_of_a_part_keeps_the_agent_that_had_learned_more(tmp_path: Path):
    train("recurrent_ppo", tmp_path)
    before = (tmp_path / "agent.json").read_bytes()
    interrupted("recurrent_ppo", tmp_path, 9)
    assert (tmp_path / "agent.json").read_bytes() == before
    train("recurrent_ppo", tmp_path, trials=9)
    assert (tmp_path / "agent.json").read_bytes() == before


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_leaves_no_folders_of_logs_behind(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    train(name, tmp_path / "study")
    assert not [*(tmp_path / "temporary").glob("SB3*")]


def test_a_study_is_bound_to_the_agent_that_it_began_with(tmp_path: Path):
    for seed in (1, 2):
        train("recurrent_ppo", tmp_path / str(seed), seed)
    problem, saved = tiny(), tmp_path / "saved"
    searcher = SearcherSpec(name="recurrent_ppo", settings={"agent": str(saved)})
    shutil.copytree(tmp_path / "1", saved)
    before = study_header(problem, searcher, 0)
    assert before == study_header(problem, searcher, 0)
    shutil.copytree(tmp_path / "2", saved, dirs_exist_ok=True)
    with TrialLog(tmp_path / "study", before, print), pytest.raises(ConfigError, match="holds no saved agent"):
        study_header(problem, SearcherSpec(name="ppo", settings={"agent": str(tmp_path / "nowhere")}), 0)
    with pytest.raises(RunMismatch, match=r"hashes\.agent"):
        TrialLog(tmp_path / "study", study_header(problem, searcher, 0), print)


def test_a_damaged_or_foreign_agent_is_refused(tmp_path: Path):
    train("recurrent_ppo", tmp_path)
    with pytest.raises(ConfigError, match="holds no saved agent"):
        build_searcher("ppo", {"agent": str(tmp_path / "nowhere")}, tiny(), 0)
    with pytest.raises(ConfigError, match="an agent of 'recurrent_ppo', which 'ppo' cannot take over"):
        build_searcher("ppo", {"agent": str(tmp_path)}, tiny(), 0)
    card = json.loads((tmp_path / "agent.json").read_text())
    (tmp_path / "agent.json").write_text(json.dumps(card | {"features": card["features"][1:]}))
    with pytest.raises(ConfigError, match="other features"):
        load_network(tmp_path, "recurrent_ppo")
    (tmp_path / "agent.json").write_text(json.dumps(card))
    content = bytearray((tmp_path / "agent.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "agent.safetensors").write_bytes(content)
    with pytest.raises(CorruptFile, match="SHA-256"):
        load_network(tmp_path, "recurrent_ppo")
    (tmp_path / "agent.json").write_text("[]")
    with pytest.raises(CorruptFile, match="not the card"):
        load_network(tmp_path, "recurrent_ppo")
