"""`automc data` and `automc train`: what a search needs before it starts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from automc.commands.console import note, say
from automc.commands.specs import read_environment
from automc.errors import InputError

if TYPE_CHECKING:
    from torch import nn


def data_command(action: str, name: str) -> None:
    """Fetch a data set into the cache."""
    from automc.network.download import fetch

    if action != "get":
        raise InputError(f"automc data {action}: the only action is 'get', as in automc data get {name}")
    say(str(fetch(name, note)))


def train_command(name: str, overrides: tuple[str, ...], out: Path | None) -> None:
    """Train an environment's network from nothing and write its weights and the log of the training."""
    import torch
    from safetensors.torch import save

    from automc.environment.loading import open_dataset
    from automc.environment.quality import Answers, find_metric
    from automc.files import write_atomic
    from automc.network.datasets import Images, split
    from automc.network.resources import keep_memory
    from automc.network.training import STATE_NAME, ask, train
    from automc.network.zoo import build_network

    spec, file = read_environment(name, overrides)
    metric = find_metric(spec.metric)
    dataset = open_dataset(spec, file)
    splits = split(dataset, spec.data.search, spec.data.selection, spec.data.carve_from, spec.data.seed)
    folder = out or Path("runs") / "training" / name
    log = folder / f"{name}.log"
    heading = [
        f"{spec.network} on {len(splits.train)} training images of {dataset.name}; "
        f"held out: {len(splits.search)} for search, {len(splits.selection)} for selection",
        f"recipe: {spec.training.model_dump_json()}",
    ]
    for line in heading:
        note(line)
    resumed = (folder / STATE_NAME).is_file() and log.is_file()
    lines = log.read_text(encoding="utf-8").splitlines() if resumed else heading

    def report(line: str) -> None:
        note(line)
        if line not in lines[-1:]:  # the last one of a training that was finished already
            lines.append(line)
            write_atomic(log, "\n".join(lines) + "\n")

    def judged(name: str, images: Images, module: nn.Module) -> str:
        outputs = ask(module, images.pixels, dataset.mean, dataset.std)
        found = metric.measure(Answers(images, outputs, outputs)).value
        return f"{name} {metric.reading.title} {metric.reading.show(found)}"

    with torch.random.fork_rng(devices=[]):  # fresh weights are drawn from torch's global generator
        torch.manual_seed(spec.training.seed)
        module = build_network(spec.network, len(dataset.classes), splits.train.pixels.shape[3])
    held_out = partial(judged, "held-out", splits.selection)
    keep_memory()
    train(module, splits.train, dataset.mean, dataset.std, spec.training, folder, report, held_out)
    report(judged("test", splits.test, module))
    weights = folder / f"{name}.safetensors"
    write_atomic(weights, save({key: value.contiguous() for key, value in module.state_dict().items()}))
    say(str(weights))
