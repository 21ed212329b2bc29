"""The figures: the data that they show against cases done by hand, and files that depend on the data alone."""

import logging

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from automc.analysis import plots
from automc.analysis.figures import learning_figure, pareto_figure
from automc.analysis.ranking import rank, verdict
from automc.analysis.report import write_report
from automc.analysis.runs import Task, read_run
from automc.compression.policy import Policy
from automc.errors import ConfigError, CorruptFile, NameNotFound
from automc.search.searchers import is_agent, searcher_names
from automc.search.trials import Trial, TrialLog
from tests.runs import LAYERS, make_result, make_run, make_study


def write_study(folder, points, failed=()):
    """A study whose trials have these (latency_ms, accuracy) and the accuracy as reward."""
    searcher, _, seed = folder.name.rpartition("-")
    with TrialLog(folder, {"searcher": searcher, "seed": int(seed)}, logging.getLogger(__name__).warning) as log:
        for number, (latency, accuracy) in enumerate(points):
            metrics = {"latency_ms": latency, "accuracy": accuracy, "accuracy_loss": 0.75 - accuracy}
            if number in failed:
                log.append(Trial(number, Policy(), {}, 0.99, "failed", "accuracy is nan"))
            else:
                log.append(Trial(number, Policy(), metrics, accuracy))


def task_of(folder) -> Task:
    (task,) = read_run(folder).tasks
    return task


def test_pareto_figure_of_a_case_by_hand(tmp_path):
    write_study(
        tmp_path / "tiny" / "random-0", [(3.0, 0.75), (1.0, 0.25), (2.0, 0.5), (2.5, 0.5), (9.0, 0.9)], failed=(4,)
    )
    figure = pareto_figure(task_of(tmp_path))
    (cloud,) = figure.clouds
    assert (figure.metric, cloud.searcher) == ("latency_ms", "random")
    assert cloud.cost.tolist() == [3.0, 1.0, 2.0, 2.5]  # not the failed trial
    assert cloud.front.tolist() == [1, 2, 0]
    assert (figure.marks, figure.limit, figure.dense_quality) == ((), None, 0.75)


def test_pareto_figure_compares_on_the_search_images_only(tmp_path):
    figure = pareto_figure(task_of(make_run(tmp_path / "run")))
    assert {mark.kind: mark.quality for mark in figure.marks} == {
        "dense_int8": 0.918, "uniform": 0.874, "searched": 0.905, "finetuned": 0.917,
    }  # fmt: skip
    assert figure.limit == pytest.approx(0.206)


def test_the_budget_is_drawn_before_there_is_a_winner(tmp_path):
    write_study(tmp_path / "tiny" / "random-0", [(3.0, 0.75), (1.0, 0.25)])
    (tmp_path / "tiny" / "scale.json").write_text('{"limits": {"latency_ms": 2.0}}')
    assert pareto_figure(task_of(tmp_path)).limit == 2.0


def test_the_axis_begins_below_three_quarters_of_the_trials_and_counts_the_others(tmp_path):
    points = [
        (float(number + 1), accuracy) for number, accuracy in enumerate([0.1, 0.8, 0.82, 0.84, 0.86, 0.88, 0.9, 0.9])
    ]
    write_study(tmp_path / "tiny" / "random-0", points)
    figure = pareto_figure(task_of(tmp_path))
    assert 0.8 < figure.floor < 0.82
    assert figure.hidden == 2


def test_learning_figure_of_a_case_by_hand(tmp_path):
    write_study(tmp_path / "tiny" / "random-0", [(1.0, 0.5), (1.0, 0.25), (1.0, 0.75)])
    write_study(tmp_path / "tiny" / "random-1", [(1.0, 0.25), (1.0, 0.5)])
    figure = learning_figure(task_of(tmp_path))
    (curve,) = figure.curves
    assert (curve.seeds, figure.rewards) == (2, None)
    # The shorter study keeps what it found. Of two seeds the interval reaches from one to the other.
    assert curve.lower.tolist() == [0.25, 0.5, 0.5]
    assert curve.upper.tolist() == [0.5, 0.5, 0.75]
    assert curve.mean.tolist() == [0.375, 0.5, 0.625]


def test_learning_figure_of_one_study_shows_its_trials_and_leaves_out_failures(tmp_path):
    write_study(tmp_path / "tiny" / "ppo-3", [(1.0, 0.5), (1.0, 0.9), (1.0, 0.75)], failed=(1,))
    figure = learning_figure(task_of(tmp_path))
    assert np.isnan(figure.rewards[1])
    assert figure.curves[0].mean.tolist() == [0.5, 0.5, 0.75]
    assert figure.failed == 1


def test_ranking_orders_by_interquartile_mean_and_measures_hypervolume(tmp_path):
    for seed, best in enumerate((0.5, 0.5)):
        write_study(tmp_path / "tiny" / f"random-{seed}", [(2.0, 0.25), (4.0, best)])
        write_study(tmp_path / "tiny" / f"tpe-{seed}", [(4.0, 0.75)])
    ranking = rank(task_of(tmp_path))
    first, second = ranking.standings
    assert (first.searcher, first.reward.estimate, first.trials) == ("tpe", 0.75, 1)
    assert (second.searcher, second.reward.estimate, second.trials) == ("random", 0.5, 2)
    # The reference is the largest cost seen, 4, which no point at 4 betters: only (2, 0.25) counts, 2 * 0.25 / 4.
    assert (first.hypervolume.estimate, second.hypervolume.estimate) == (0.0, 0.125)
    assert [(test.first, test.second, test.probability_of_improvement) for test in ranking.tests] == [
        ("tpe", "random", 1.0)
    ]


def _verdict(folder, scores):
    for searcher, rewards in scores.items():
        for seed, reward in enumerate(rewards):
            write_study(folder / "tiny" / f"{searcher}-{seed}", [(1.0, reward)])
    return verdict(rank(task_of(folder)))


def test_verdict_names_a_winner_only_above_every_interval(tmp_path):
    text = _verdict(tmp_path, {"ppo": [0.81, 0.82, 0.83, 0.84, 0.85], "random": [0.71, 0.72, 0.73, 0.74, 0.75]})
    assert text.startswith("ppo wins")
    assert "does not win" not in text
    assert "significance" not in text


@pytest.mark.parametrize("agent", [name for name in searcher_names() if is_agent(name)])
def test_verdict_says_when_an_agent_loses(tmp_path, agent):
    text = _verdict(tmp_path, {agent: [0.6, 0.61, 0.62, 0.63], "random": [0.7, 0.71, 0.72, 0.73]})
    assert text.startswith("random wins")
    assert f"The learned agent {agent} does not win: it takes place 2 of 2, 0.1000 below random." in text


def test_verdict_says_when_intervals_overlap_and_when_seeds_are_too_few(tmp_path):
    text = _verdict(tmp_path, {"ppo": [0.6, 0.7, 0.8], "random": [0.61, 0.69, 0.78]})
    assert "overlaps that of random: these seeds do not tell them apart" in text
    assert "With 3 seeds a rank test over 2 searchers cannot reach 5 % significance" in text
    assert "0.10" in text  # 2 of the 20 ways to share out six ranks


def test_verdict_on_single_seeds_ranks_nobody(tmp_path):
    assert "single seeds allow no ranking" in _verdict(tmp_path, {"ppo": [0.6], "random": [0.7]})


def test_verdict_on_one_searcher_and_on_nothing(tmp_path):
    assert (
        _verdict(tmp_path / "a", {"ppo": [0.6]})
        == "Only ppo has searched, with 1 seed: best reward after 1 trial (0.6000)."
    )
    write_study(tmp_path / "b" / "tiny" / "ppo-0", [(1.0, 0.5)], failed=(0,))
    assert verdict(rank(task_of(tmp_path / "b"))) == "No trial has succeeded yet."


def test_figures_are_those_that_the_run_allows(tmp_path):
    one = make_run(tmp_path / "one")
    assert [name for name, _ in plots.figures(task_of(one))] == ["pareto", "policy", "learning"]
    for several in (make_run(tmp_path / "searchers", ("ppo", "random")), make_run(tmp_path / "seeds", seeds=2)):
        assert [name for name, _ in plots.figures(task_of(several))] == ["pareto", "policy", "learning", "ranking"]
        assert "Which searcher did best" in write_report(several).read_text()
    write_study(tmp_path / "failed" / "tiny" / "ppo-0", [(1.0, 0.5)], failed=(0,))
    assert list(plots.figures(task_of(tmp_path / "failed"))) == []


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def test_axes_bear_units_and_every_layer_its_name(tmp_path):
    drawn = dict(plots.figures(task_of(make_run(tmp_path))))
    assert {"predicted latency (ms)", "accuracy on the search images (%)", "dense int8", "budget"} <= set(
        _texts(drawn["pareto"])
    )
    assert set(LAYERS) <= set(_texts(drawn["policy"]))
    layer = make_result().layers[0]
    assert f"{layer.kept_channels}/{layer.channels}" in _texts(drawn["policy"])


def test_no_bar_reaches_its_text_also_where_a_layer_was_grown():
    first, *others = make_result().layers
    panel = plots.draw_policy([first.model_copy(update={"kept_channels": 24}), *others]).axes[0]
    assert max(bar.get_width() for bar in panel.patches) == 24 / 16
    assert all(24 / 16 < text.get_position()[0] < panel.get_xlim()[1] for text in panel.texts)


def test_a_policy_without_latencies_has_no_latency_panel():
    layers = [layer.model_copy(update={"latency_ms": None, "dense_latency_ms": None}) for layer in make_result().layers]
    assert len(plots.draw_policy(layers).axes) == 3


@pytest.mark.parametrize("name", ["$\\frac$", "<b>&", "a_b^c{d"])
def test_any_name_can_be_drawn(name):
    layers = [make_result().layers[0].model_copy(update={"name": name})]
    svg = plots.to_svg(plots.draw_policy(layers), "p")
    assert "<b>&<" not in svg


def test_drawing_leaves_matplotlibs_settings_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    plots.save_figures(make_run(tmp_path), tmp_path / "figures", ("svg",))
    assert dict(matplotlib.rcParams) == before


def test_equal_runs_give_equal_files(tmp_path):
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        written = plots.save_figures(make_run(folder), folder / "figures", plots.FORMATS)
        contents.append({path.name: path.read_bytes() for path in written})
    assert len(contents[0]) == 9
    assert contents[0] == contents[1]
    assert contents[0]["resnet20_cifar10-pareto.png"].startswith(b"\x89PNG")
    assert contents[0]["resnet20_cifar10-pareto.pdf"].startswith(b"%PDF")


def test_other_data_gives_other_files(tmp_path):
    make_study(tmp_path / "a" / "tiny", "random", 0)
    make_study(tmp_path / "b" / "tiny", "random", 1)
    first, second = (plots.save_figures(tmp_path / name, tmp_path / name, ("svg",))[0].read_bytes() for name in "ab")
    assert first != second


def test_an_unknown_format_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match=r"no figure format 'pgn'\. Did you mean 'png'"):
        plots.save_figures(make_run(tmp_path), tmp_path, ("pgn",))


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(NameNotFound, match="holds no run"):
        read_run(tmp_path)


def test_a_damaged_result_is_named(tmp_path):
    path = make_run(tmp_path) / "resnet20_cifar10" / "winner" / "result.json"
    path.write_text(path.read_text().replace('"quality": 0.9173', '"quality": 0.99'))
    with pytest.raises(CorruptFile, match=r"result.json: rows.0.*lower <= quality <= upper"):
        read_run(tmp_path)
