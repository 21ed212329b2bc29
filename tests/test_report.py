"""The report and tables of a run: what they say, what they say when something is missing, and that they are safe."""

import csv
import io
import re
from html.parser import HTMLParser

import pytest

from automc.analysis import narrative
from automc.analysis.ranking import rank
from automc.analysis.report import write_report
from automc.analysis.runs import read_run
from automc.analysis.tables import write_tables
from automc.analysis.units import QUANTITIES, digits
from automc.errors import CorruptFile, NameNotFound, StorageError
from automc.search.kept import FRONT_NAME, INDEX_NAME
from automc.search.result import Row, Timing, Verification, read_result, write_result
from tests.runs import make_result, make_run, make_study

HOSTILE = """<script>alert(1)</script>"'&{{ 7 * 7 }}\\input{x}"""


class Page(HTMLParser):
    """The texts, the ids and the references of a page; and whether its elements nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        named = dict(attributes)
        self.ids += [named["id"]] if "id" in named else []
        self.links += [value for name, value in attributes if name in ("href", "xlink:href", "src")]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "pre"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def report_of(folder) -> str:
    return write_report(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "demo", ("ppo", "random"), 3)


@pytest.fixture(scope="module")
def page(run):
    return report_of(run)


def test_the_page_needs_nothing_else(page):
    parsed = Page(page)
    assert parsed.open == []
    assert "script" not in parsed.tags
    assert all(link.startswith("#") for link in parsed.links)
    assert "url(http" not in page
    assert len(parsed.ids) == len(set(parsed.ids))
    # Every reference of a figure leads to an element of the page.
    assert {link[1:] for link in parsed.links} | set(re.findall(r"url\(#([^)]*)\)", page)) <= set(parsed.ids)


def test_the_page_says_what_was_achieved(page):
    text = Page(page).text
    assert (
        "resnet20 on cifar10 now needs 0.211 ms instead of 0.420 ms (2.0 times less than dense int8, measured)" in text
    )
    assert "129 KiB instead of 1,053 KiB (8.1 times less than dense float32)" in text
    assert "its accuracy on the test images is 91.32 %, 0.41 points less than that of the dense float32 network" in text
    assert "Verified: 10,000 images, 0 of 100,000 output values differ" in text


def test_the_page_compares_with_every_row(page):
    text = Page(page).text
    for label in ("dense float32", "dense int8", "uniform at the same budget", "searched", "searched, fine-tuned"):
        assert label in text
    assert "91.73 % 91.17–92.25 % — — — 1,053 — 40.5" in text  # the float32 network has no integer library
    assert page.count('<tr class="won">') == 1


def test_the_page_says_how_the_numbers_came_about(page):
    text = Page(page).text
    assert "1,000 for the search, 1,000 to select the winner, 10,000 for this report's accuracy" in text
    assert "trial 31 of ppo with seed 0" in text
    assert "interpolated: layer2.0.conv1" in text
    assert "median of 200 runs" in text
    assert "240 evaluated policies, 3 of them failed; by ppo (seed 0 1 2), random (seed 0 1 2)" in text
    assert "fc is kept at 8 bits" in text


def test_the_page_ranks_searchers_with_intervals(page):
    text = Page(page).text
    assert "Which searcher did best" in text
    assert "cannot reach 5 % significance" in text
    assert "p-value (Mann-Whitney, Holm)" in text


def test_the_page_gives_commands_that_find_the_files(page):
    assert "automc verify resnet20_cifar10/winner/library --env resnet20_cifar10" in page
    assert "automc_0123abcd_invoke(arena);" in page


def test_equal_runs_give_equal_pages_and_tables(run, page, tmp_path):
    again = make_run(tmp_path / "demo", ("ppo", "random"), 3)
    assert report_of(again) == page
    first, second = write_tables(run), write_tables(again)
    assert [path.name for path in first] == [
        "comparison.csv", "comparison.tex", "front.csv", "ranking.csv", "trials.csv",
    ]  # fmt: skip
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_hostile_texts_stay_text(tmp_path):
    result = make_result()
    rows = tuple(row.model_copy(update={"label": HOSTILE}) for row in result.rows)
    layers = tuple(layer.model_copy(update={"name": HOSTILE, "kernel": HOSTILE}) for layer in result.layers)
    texts = dict.fromkeys(
        ("description", "network", "dataset", "goal", "device", "compiler", "latency_source"), HOSTILE
    )
    run = make_run(tmp_path, rows=rows, layers=layers, notes=(HOSTILE,), versions={HOSTILE: HOSTILE}, **texts)
    page = report_of(run)
    parsed = Page(page)
    assert "script" not in parsed.tags
    assert parsed.open == []
    assert "{{ 7 * 7 }}" in parsed.text
    latex = next(path for path in write_tables(run) if path.suffix == ".tex").read_text()
    assert "\\input" not in latex


def test_a_failed_verification_is_said_loudly(tmp_path):
    broken = Verification(images=100, logits=1000, different_logits=7)
    page = report_of(make_run(tmp_path, verification=broken))
    assert '<p class="check bad">Verification failed: 100 images, 7 of 1,000 output values differ' in page
    assert "Do not use this library." in page


def test_a_carved_test_set_is_confessed(tmp_path):
    sizes = make_result().splits.model_copy(update={"carved_from": "test", "test": 8000})
    assert "carved out of the official test images" in Page(report_of(make_run(tmp_path, splits=sizes))).text


def test_a_run_without_a_winner_gets_a_report_of_its_studies(tmp_path):
    make_study(tmp_path / "tiny", "random", 0)
    page = Page(report_of(tmp_path))
    assert "Only random has searched, with 1 seed" in page.text
    assert "No library has been delivered" in page.text
    assert "Next steps" not in page.text
    assert "svg" in page.tags
    assert [path.name for path in write_tables(tmp_path)] == ["front.csv", "ranking.csv", "trials.csv"]


def test_a_study_without_a_success_and_one_without_a_trial_are_reported(tmp_path):
    make_study(tmp_path / "tiny", "random", 0, trials=2, failures=(0, 1))
    make_study(tmp_path / "tiny", "tpe", 0, trials=0)
    text = Page(report_of(tmp_path)).text
    assert "No trial has succeeded yet." in text
    assert "2 evaluated policies, 2 of them failed" in text
    assert write_tables(tmp_path) == []


def test_a_winner_without_its_studies_is_reported(tmp_path):
    write_result(make_result(), tmp_path / "resnet20_cifar10" / "winner" / "result.json")
    text = Page(report_of(tmp_path)).text
    assert "Verified" in text
    assert "How the search went" not in text


def test_an_environment_is_called_as_its_folder_is(tmp_path):
    (make_run(tmp_path) / "resnet20_cifar10").rename(tmp_path / "again")
    (task,) = read_run(tmp_path).tasks
    assert (task.environment, len(task.studies), task.result) == ("again", 1, make_result())


def test_a_layer_that_was_grown_stands_beside_what_it_was(tmp_path, page):
    (grown, *others) = make_result().layers
    layers = (grown.model_copy(update={"kept_channels": 24}), *others)
    text = Page(report_of(make_run(tmp_path, layers=layers))).text
    assert "24 instead of 16" in text
    assert "longer than its track" in text
    assert "longer than its track" not in page


def test_missing_numbers_are_dashes(tmp_path):
    bare = Row(kind="searched", label="searched", quality=0.9, images=10, size_bytes=2048, macs=10**6)
    text = Page(report_of(make_run(tmp_path, rows=(bare,), energy_source="", layers=()))).text
    assert "resnet20 on cifar10 now needs 2.00 KiB; its accuracy on the test images is 90.00 %." in text
    assert "90.00 % — — — — 2.00 — 1.00" in text
    assert "Intervals" not in text
    assert "no energy model for this device" in text
    assert "not measured" in text


def test_several_environments_each_have_a_section(tmp_path):
    make_run(tmp_path)
    make_study(tmp_path / "another", "random", 0)
    parsed = Page(report_of(tmp_path))
    assert len(parsed.ids) == len(set(parsed.ids))
    assert parsed.text.index("another") < parsed.text.index("resnet20_cifar10")


def test_tables_hold_plain_numbers_and_the_front_only(run):
    paths = {path.name: path for path in write_tables(run)}
    rows = list(csv.DictReader(io.StringIO(paths["comparison.csv"].read_text())))
    assert [row["network"] for row in rows][:2] == ["dense float32", "dense int8"]
    assert float(rows[0]["accuracy"]) == 0.9173
    assert rows[0]["latency_ms"] == ""
    trials = list(csv.DictReader(io.StringIO(paths["trials.csv"].read_text())))
    assert len(trials) == sum((study.trials["state"] == "complete").sum() for study in read_run(run).tasks[0].studies)
    assert "policy" not in trials[0]
    front = list(csv.DictReader(io.StringIO(paths["front.csv"].read_text())))
    costs, accuracies = ([float(row[name]) for row in front] for name in ("latency_ms", "accuracy"))
    assert costs == sorted(costs)
    assert accuracies == sorted(accuracies)
    assert {row["searcher"] for row in front} <= {"ppo", "random"}
    (task,) = read_run(run).tasks
    ranking = list(csv.DictReader(io.StringIO(paths["ranking.csv"].read_text())))
    for row, standing in zip(ranking, rank(task).standings, strict=True):
        assert row["searcher"] == standing.searcher
        assert float(row["reward"]) == standing.reward.estimate
        assert float(row["hypervolume_lower"]) == standing.hypervolume.lower
        assert (float(row["reference_latency_ms"]), float(row["reference_accuracy"])) == task.reference
    best = max(study.trials["accuracy"].max() for study in task.studies)
    assert accuracies[-1] == best


def test_headline_says_when_nothing_was_gained():
    slow = Timing(median_ms=0.5, lower_ms=0.5, upper_ms=0.5, repeats=10)
    result = make_result()
    rows = tuple(
        row.model_copy(update={"measured": slow if row.measured else None, "quality": 0.9173, "size_bytes": 1000})
        for row in result.rows
    )
    assert narrative.headline(result.model_copy(update={"rows": rows})) == (
        "resnet20 on cifar10 now needs 0.500 ms instead of 0.500 ms (no less than dense int8, measured) and 0.977 KiB "
        "instead of 0.977 KiB (no less than dense float32); its accuracy on the test images is 91.73 %, the "
        "same as that of the dense float32 network."
    )


def test_a_small_number_takes_a_smaller_unit():
    assert QUANTITIES["latency_ms"].show(0.00498) == "4.98 µs"
    assert QUANTITIES["latency_ms"].show(0.211) == "0.211 ms"
    assert QUANTITIES["size_bytes"].show(100) == "0.0977 KiB"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (0.1, "0.100"), (1.0, "1.00"), (12.34, "12.3"), (99.96, "100"), (1234.5, "1,234")],
)
def test_digits_shows_three_that_count(value, text):
    assert digits(value) == text


def test_a_result_survives_its_file(tmp_path):
    write_result(make_result(), tmp_path / "result.json")
    assert read_result(tmp_path / "result.json") == make_result()


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ('"target": "avx2"', '"targets": "avx2"', "targets: Extra inputs"),
        ('"kind": "uniform"', '"kind": "dense_int8"', "each kind at most once"),
        ('"kind": "searched"', '"kind": "search"', "rows.3.kind: Input should be"),
        ('"lower_ms": 0.4158', '"lower_ms": 9.0', "lower_ms <= median_ms"),
        ('"kept_channels": 15', '"kept_channels": 0', "greater than or equal to 1"),
        ('_quality": 0.92', '_quality": NaN', "finite"),
        ("}", "", "Invalid JSON"),
    ],
)
def test_a_result_that_does_not_hold_is_refused(tmp_path, before, after, fault):
    path = tmp_path / "result.json"
    write_result(make_result(), path)
    content = path.read_text()
    assert before in content
    path.write_text(content.replace(before, after, 1))
    with pytest.raises(CorruptFile, match=fault):
        read_result(path)


def test_a_result_that_is_not_there_or_not_text_is_refused(tmp_path):
    with pytest.raises(StorageError, match="cannot read"):
        read_result(tmp_path / "result.json")
    (tmp_path / "result.json").write_bytes(b"\xff\xfe")
    with pytest.raises(CorruptFile, match="UTF-8"):
        read_result(tmp_path / "result.json")


def test_a_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(NameNotFound, match="holds no run"):
        write_report(tmp_path)


def test_the_reference_of_hypervolumes_does_not_wait_for_a_winner(tmp_path):
    folder = make_run(tmp_path / "demo", ("random",), 2)
    [task] = read_run(folder).tasks
    (folder / task.environment / "scale.json").write_text('{"limits": {"macs": 2e7}, "dense": {"macs": 4e7}}')
    (task.winner_folder / "result.json").unlink()
    [task] = read_run(folder).tasks
    assert (task.cost_metric, task.reference) == ("macs", (4e7, 0.0))
    (folder / task.environment / "scale.json").write_text('{"dense": {"macs": -1}}')
    with pytest.raises(CorruptFile, match=r"scale\.json"):
        read_run(folder)


def test_a_delivered_front_is_a_table_of_the_page(tmp_path):
    folder = make_run(tmp_path / "demo", ("random",), 1)
    assert "The front as libraries" not in Page(report_of(folder)).text
    [environment] = [task.environment for task in read_run(folder).tasks]
    place = folder / environment / FRONT_NAME
    place.mkdir()
    (place / INDEX_NAME).write_text(
        "folder,trial,accuracy,latency_ms,energy_mj,size_bytes,peak_memory_bytes,macs,"
        "selection_accuracy,selection_accuracy_lower,selection_accuracy_upper\n"
        "ppo-0-57,57,0.95,0.25,,102400,2048,20000000,0.9117,0.9,0.92\n"
        "ppo-0-12,12,0.96,0.5,1.5,204800,2048,40000000,0.9217,,\n"
    )
    text = Page(report_of(folder)).text
    assert "2 networks that no other trial beats" in text
    assert "ppo-0-57 91.17 % 90.00–92.00 % 0.250 — 100 2.00 20.0 ppo-0-12 92.17 % — 0.500 1.50 200 2.00 40.0" in text
