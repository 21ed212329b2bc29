"""`automc tune`: a good recipe for fine-tuning one compressed network, searched here or in the background."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from automc.catalog import find
from automc.commands.artifacts import read_policy
from automc.commands.console import note, say
from automc.commands.specs import check_environment, open_problem
from automc.errors import StorageError
from automc.files import write_atomic
from automc.schema import FinetuningSpec

OUTPUT_NAME = "output.txt"  # what a tuning in the background says


def tune_command(
    name: str,
    policy: str,
    overrides: tuple[str, ...],
    weights: Path | None,
    epochs: float,
    seed: int,
    out: Path | None,
    background: bool,
    plugins: tuple[str, ...],
) -> None:
    """Search, and write the best recipe, as the command of a search that uses it, and the network that it gave."""
    from automc.search.tuning import PROGRAM_NAME, RECIPE_NAME, read_tuning, trial_lengths, tune

    policy_of = read_policy(policy)
    # These faults, too, are for whoever waits at the terminal.
    spec = check_environment(find("envs", name), overrides, weights)
    trial_lengths(spec.finetuning, epochs)
    folder = out or Path("runs") / "tuned" / name
    options = [f"--plugin={plugin}" for plugin in plugins]
    if background:
        options += ["tune", name, policy, *overrides, f"--epochs={epochs}", f"--seed={seed}", f"--out={folder}"]
        _detach(options + ([] if weights is None else [f"--weights={weights}"]), folder)
        return
    from automc.network.resources import take_threads

    take_threads(1)  # the result then does not depend on the machine's cores
    problem = open_problem(name, overrides, weights)
    tuning = tune(problem, policy_of(problem.network).normalised(problem.network), folder, epochs, seed, note)
    reading = problem.metric.reading
    for line in read_tuning(folder):
        say(line)
    say(f"best: {reading.title} {reading.show(tuning.quality)} on the selection images; a search uses its recipe by")
    recipe = shlex.join(["automc", *options, *_search_with(tuning.recipe, name, overrides, weights)])
    write_atomic(folder / RECIPE_NAME, recipe + "\n")
    say(recipe)
    say(f"written to {folder / PROGRAM_NAME}; build its library with: automc compile {folder}")


def _search_with(recipe: FinetuningSpec, name: str, overrides: tuple[str, ...], weights: Path | None) -> list[str]:
    """The command of a search of the same environment that fine-tunes its winner by `recipe`."""
    others = [override for override in overrides if not override.startswith("finetuning")]
    found = [f"finetuning.{field}={value}" for field, value in recipe.model_dump(mode="json").items()]
    given = [] if weights is None else ["--weights", str(weights)]
    return ["run", name, *others, *found, *given, "--out", str(Path("runs") / f"{name}_tuned")]


def _detach(arguments: list[str], folder: Path) -> None:
    """Run automc with `arguments` in a session of its own, which outlives this one."""
    output = folder / OUTPUT_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = output.open("ab")
    except OSError as error:
        raise StorageError(f"cannot write {output}: {error.strerror or error}") from error
    with stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "automc", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    say(f"process {process.pid} works in the background and writes to {output}")
    say(f"what it has found so far: automc show {folder}")
    say(f"stop it with: kill {process.pid}; the same command goes on from there")
