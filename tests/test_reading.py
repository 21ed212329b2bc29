"""Every field of the YAML files is checked, with file, line, field, what is allowed and the nearest name."""

import pytest

from automc.errors import ConfigError
from automc.reading import read_spec
from automc.schema import EnvironmentSpec, ExperimentSpec, SearchSpaceSpec

ENVIRONMENT = """\
description: a small one
network: resnet8
data:
  name: digits
  search: 100
goal:
  reward: amc
  limits:
    latency_ms: 50%
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "file.yaml"
        path.write_text(text)
        return path

    return write


def test_a_good_file_is_read_with_its_defaults(write):
    spec = read_spec(EnvironmentSpec, write(ENVIRONMENT))
    assert spec.data.search == 100
    assert spec.goal.limits == {"latency_ms": "50%"}
    assert spec.device == "host"


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("  search: 100", "  serach: 100", 5, "unknown field 'data.serach'. Did you mean 'search'?"),
        ("network: resnet8\n", "", None, "the field 'network' is missing"),
        ("  search: 100", "  search: many", 5, "data.search: Input should be a valid integer"),
        ("  search: 100", "  search: 0", 5, "greater than or equal to 1. Got 0 instead."),
        ("  search: 100", "  seed: -1", 5, "data.seed: Input should be greater than or equal to 0. Got -1 instead."),
        ("reward: amc", "beta: 1e999", 7, "goal.beta: Input should be a finite number"),
        ("reward: amc", "reward: best", 7, "'amc', 'mnasnet', 'absolute' or 'fastest'"),
        ("latency_ms: 50%", "latency_ms: -1", 8, "must be a positive number, or a share"),
        ("latency_ms: 50%", "latency_ms: 50 %", 8, "must be a positive number, or a share"),
        ("reward: amc", "weights: {macs: 1}", 6, "goal: weights names macs, which has no limit"),
        ("latency_ms: 50%", "latency: 50%", 9, "goal.limits.latency: Input should be 'latency_ms', 'energy_mj', "),
        ("latency_ms: 50%", "latency: 50%", 9, "Got 'latency' instead. Did you mean 'latency_ms'?"),
    ],
)
def test_every_fault_names_its_line_and_what_is_allowed(write, old, new, line, message):
    assert old in ENVIRONMENT
    path = write(ENVIRONMENT.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        read_spec(EnvironmentSpec, path)
    assert message in str(caught.value)
    assert f"{path}:{line}: " in str(caught.value) if line else str(path) in str(caught.value)


def test_all_faults_are_told_at_once(write):
    with pytest.raises(ConfigError) as caught:
        read_spec(EnvironmentSpec, write("description: x\nnetwork: 3\ndata: {name: digits, search: 0}\n"))
    assert len(str(caught.value).splitlines()) == 2


def test_overrides_lie_over_the_file(write):
    spec = read_spec(EnvironmentSpec, write(ENVIRONMENT), ("data.search=7", "goal.limits.size_bytes=1e5"))
    assert spec.data.search == 7
    assert spec.goal.limits["size_bytes"] == 1e5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.search", "must have the form"),
        ("network.depth=3", "'network' has no fields"),
        ("goal.limits.latency=3", "goal.limits.latency: Input .* Did you mean 'latency_ms'?"),
        ("goal.reward=fast", "Did you mean 'fastest'?"),
        ("data.serach=3", "Did you mean 'search'?"),
        ("goal.limits=[", "override"),
        ("data.search=0", r"^override 'data.search=0': data.search: .*greater than or equal to 1. Got 0 instead"),
    ],
)
def test_bad_overrides_are_refused(write, override, message):
    with pytest.raises(ConfigError, match=message):
        read_spec(EnvironmentSpec, write(ENVIRONMENT), (override,))


def test_a_file_that_is_no_mapping_or_not_there(write, tmp_path):
    with pytest.raises(ConfigError, match="must be a mapping"):
        read_spec(EnvironmentSpec, write("- 1\n"))
    with pytest.raises(ConfigError, match="cannot read"):
        read_spec(EnvironmentSpec, tmp_path / "none.yaml")


def test_searchers_may_be_plain_names(write):
    text = "description: x\nenvs: [a]\nsearchers: [ppo, {name: tpe, settings: {startup: 5}}]\n"
    spec = read_spec(ExperimentSpec, write(text))
    assert [searcher.name for searcher in spec.searchers] == ["ppo", "tpe"]


def test_choices_of_a_space_ascend(write):
    with pytest.raises(ConfigError, match="ascending"):
        read_spec(SearchSpaceSpec, write("description: x\nweight_bits: [8, 4]\n"))


def test_a_ratio_that_is_none_is_named_as_the_file_has_it(write):
    with pytest.raises(ConfigError, match=r":2: keep_ratio\.1: Input should be less than or equal to 1\. Got 2\.0"):
        read_spec(SearchSpaceSpec, write("description: x\nkeep_ratio: [0.5, 2.0]\n"))


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("[{method: codebok, entries: 4}]", r"methods\.0: no method 'codebok'\. Did you mean 'codebook'\?"),
        ("[{weight_bits: 4}, codebook]", r"methods\.1: must be a method with its fields, .* Got 'codebook' instead"),
        ("[{method: codebook, entries: 1}]", ":2: methods.0.entries: .* needs at least 2 entries"),
        ("[{weight_bits: 4}, {method: codebook, entires: 4}]", r"'methods\.1\.entires'\. Did you mean 'entries'"),
        ("[{method: codebook, entries: 4}, {method: codebook, entries: 4}]", "codebook of 4 stands twice"),
        ("[{method: uniform, weight_bits: 3}]", "3 bits belongs into weight_bits"),
    ],
)
def test_methods_of_a_space_are_checked(write, methods, message):
    with pytest.raises(ConfigError, match=message):
        read_spec(SearchSpaceSpec, write(f"description: x\nmethods: {methods}\n"))


@pytest.mark.parametrize("field", ["seeds: [0, 1, 0]", "envs: [one, one]"])
def test_studies_of_an_experiment_cannot_share_a_folder(write, field):
    text = {"description": "x", "envs": "[one]", "searchers": "[random]"}
    name, _, value = field.partition(": ")
    path = write("".join(f"{key}: {each}\n" for key, each in (text | {name: value}).items()))
    with pytest.raises(ConfigError, match="stands twice; its studies would share their folders"):
        read_spec(ExperimentSpec, path)
