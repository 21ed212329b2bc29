"""Every file of `envs/` can be made by Gymnasium, whichever is imported first, and costs nothing where it is unused."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from safetensors.torch import save_file

from automc import catalog
from automc.cost.table import write_table
from automc.environment.environment import CompressionEnv
from automc.environment.loading import load_problem, open_dataset
from automc.environment.quality import find_metric
from automc.errors import ConfigError, NameNotFound, WeightsError
from automc.network import datasets
from automc.network.datasets import find_dataset
from automc.network.trace import trace
from automc.network.zoo import build_network, find_network
from automc.reading import read_spec
from automc.schema import EnvironmentSpec
from automc.search.searchers import searcher_class
from tests.problems import macs_table


@pytest.fixture
def make(tmp_path, monkeypatch):
    """`gymnasium.make` with random weights, a made-up device, and random pixels where a data set is not shipped."""

    def noise(name: str, classes: tuple[str, ...], side: int, channels: int) -> datasets.Dataset:
        random = np.random.default_rng(0)
        images = datasets.Images(
            random.integers(0, 256, (6000, side, side, channels), dtype=np.uint8),
            random.integers(0, len(classes), 6000),
        )
        mean, std = (0.5,) * channels, (0.2,) * channels
        return datasets.Dataset(name, classes, mean, std, images, images)

    fashion = ("t-shirt", *"bcdefghij")
    monkeypatch.setitem(datasets._REGISTRY, "cifar10", lambda: noise("cifar10", tuple("abcdefghij"), 32, 3))
    monkeypatch.setitem(datasets._REGISTRY, "fashion_mnist", lambda: noise("fashion_mnist", fashion, 28, 1))
    monkeypatch.setenv("AUTOMC_PATH", str(tmp_path))

    def make(name: str, *overrides: str, weights=None):
        file = catalog.find("envs", name)
        spec = read_spec(EnvironmentSpec, file)
        dataset = open_dataset(spec, file)
        _, height, width, channels = dataset.train.pixels.shape
        module = build_network(spec.network, len(dataset.classes), channels)
        network = trace(module, (channels, height, width), dataset.mean, dataset.std, spec.network)
        write_table(macs_table(network), tmp_path / "latency_tables" / "paper.csv")
        save_file(module.state_dict(), tmp_path / "weights.safetensors")
        overrides = (f"weights={tmp_path}/weights.safetensors", "device=paper", *overrides)
        return gymnasium.make(f"automc:automc/{name}-v0", weights=weights, overrides=overrides)

    return make


@pytest.mark.parametrize("name", [path.stem for path in (catalog.own_folder() / "envs").glob("*.yaml")])
def test_every_file_of_envs_keeps_the_contracts(make, name):
    from stable_baselines3.common.env_checker import check_env as check_env_of_stable_baselines

    torch.set_num_threads(1)
    made = make(name)
    assert isinstance(made.unwrapped, CompressionEnv)
    check_env(made.unwrapped, skip_render_check=True)
    check_env_of_stable_baselines(made.unwrapped)


def test_what_an_environment_lacks_is_said_before_any_work(make, tmp_path):
    with pytest.raises(WeightsError, match="cannot read weights from"):
        make("resnet8_digits", weights=tmp_path / "absent.safetensors")
    with pytest.raises(
        WeightsError, match=r"absent\.safetensors does not exist; train them with:\n  automc train resnet8"
    ):
        make("resnet8_digits", "weights=absent.safetensors")
    with pytest.raises(WeightsError, match=r"names no weights; train them with:\n.*\n.*the --plugin of this command"):
        make("resnet8_digits", "weights=null")
    with pytest.raises(NameNotFound, match=r"no 'papyr' in latency_tables/\. Did you mean 'paper'"):
        make("resnet8_digits", "device=papyr")
    with pytest.raises(ConfigError, match=r"unknown field 'data\.serach'"):
        make("resnet8_digits", "data.serach=3")


def test_weights_of_unknown_training_are_searched_on_test_images(make, tmp_path):
    own = make("resnet8_digits", "data.search=100", "data.selection=100").unwrapped.problem
    assert own.splits.carved_from == "train"
    assert len(own.splits.test) == 500
    weights = tmp_path / "weights.safetensors"
    foreign = make("resnet8_digits", "data.search=100", "data.selection=100", weights=weights).unwrapped.problem
    assert foreign.splits.carved_from == "test"
    assert len(foreign.splits.test) == 300
    assert foreign.identity["environment"] != own.identity["environment"]
    lines = []
    path = catalog.find("envs", "resnet8_digits")
    spec = read_spec(EnvironmentSpec, path, ("data.search=100", "data.selection=100", "device=paper"))
    load_problem(spec, path, weights, lines.append)
    assert "may have been trained on images that this environment holds out" in lines[0]


@pytest.mark.parametrize(
    "first",
    [
        "import automc; import gymnasium",
        "import gymnasium; import automc",
        "import automc, importlib.util; importlib.util.find_spec('gymnasium'); import gymnasium",
    ],
)
def test_either_may_be_imported_first(first):
    code = f"{first}; print(gymnasium.spec('automc/resnet8_digits-v0').kwargs)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{'name': 'resnet8_digits'}\n"
    assert done.stderr == ""


def test_the_package_alone_imports_nothing_heavy():
    code = "import automc, sys; print([name for name in ('gymnasium', 'torch', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("find", [find_network, find_dataset, find_metric, searcher_class])
def test_a_name_that_nothing_was_registered_under_may_be_a_plugins(find):
    with pytest.raises(NameNotFound, match=r"no .* 'mine' \(known: .*\); one of your own needs --plugin"):
        find("mine")
