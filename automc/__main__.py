"""The command line: `automc COMMAND`. What a command does stands in `automc.commands`, imported when it is called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from automc.commands.devices import bench, energy, measure
from automc.commands.options import Compiler, Out, Overrides, Target, Weights, amount
from automc.errors import AutomcError

_INTERRUPTED = 130  # what typer makes of Ctrl-C

app = typer.Typer(
    help="""Search, layer by layer, how far a network may be pruned and in how few bits it may compute, and build the C
    library that computes exactly what the search saw.

    Start with:  automc run quickstart""",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback()
def _before_any_command(
    context: typer.Context,
    plugin: Annotated[
        list[str] | None,
        typer.Option(help="A Python module of yours that registers networks, data sets, metrics or searchers."),
    ] = None,
) -> None:
    from automc.commands.plugins import import_plugins

    context.obj = tuple(plugin or ())
    import_plugins(context.obj)


@app.command()
def run(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A file of experiments/ or envs/ (automc list).")],
    overrides: Overrides = None,
    weights: Weights = None,
    searcher: Annotated[
        str | None,
        typer.Option(help="For an environment: who searches (automc list searchers); default: ppo."),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="How many policies a study evaluates.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The study's seed; of an experiment, its only one.")] = None,
    time: Annotated[
        str | None,
        typer.Option(
            help="Search for so long, all studies together, as in 90s, 10m or 2h; choosing the winner, fine-tuning and "
            "compiling come after it."
        ),
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="As K/N: only every N-th study from K on, for an array of jobs.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes: studies side by side, or the trials of one.")] = 1,
    monitor: Annotated[
        int | None, typer.Option(min=1, help="Fine-tune every so many trials one: does the reward tell the truth?")
    ] = None,
    front: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Deliver so many networks of the front of all trials, too, in front/. A new run of an environment "
            "then searches for one with ppo (every budget from half of hard limits to the whole), nsga2 and nsga3.",
        ),
    ] = None,
    out: Out = None,
) -> None:
    """Search, build the winner's library, verify it, and write the report.

    The same command goes on where a stopped or killed one was, and ends with the same result. For an experiment,
    FIELD=VALUE lies over its own file, and env.FIELD=VALUE over those of its environments.

    A run that is stopped before it has delivered leaves its best policies so far as verified libraries in best/.

    Examples:
      automc run quickstart
      automc run quickstart env.goal.limits.latency_ms=40%
      automc run resnet20_cifar10 --trials 200
      automc run resnet20_cifar10 goal.limits.latency_ms=40% --searcher random --seed 3
      automc run resnet20_baselines --only 1/4
      automc run resnet20_cifar10 --monitor 25
      automc run resnet20_cifar10 goal.limits.latency_ms=80% --front 10
    """
    from automc.commands.run import run_command

    laid, plugins = tuple(overrides or ()), context.obj
    run_command(name, laid, weights, searcher, trials, seed, time, only, workers, monitor, front, out, plugins)


@app.command()
def check(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names or files; default: everything that is found.")
    ] = None,
) -> None:
    """Check environment, search space, experiment and table files, and print every fault.

    Examples:
      automc check
      automc check resnet20_cifar10 my_table
    """
    from automc.commands.inspect import check_command

    check_command(names or [])


@app.command("list")
def list_(
    what: Annotated[
        str,
        typer.Argument(
            help="envs, search_spaces, latency_tables, experiments, networks, data, metrics, searchers, targets, runs "
            "or cache."
        ),
    ] = "all",
    clear: Annotated[bool, typer.Option(help="With cache: empty it.")] = False,
) -> None:
    """What there is: files by kind, networks, data sets, metrics, searchers, targets, runs, the cache.

    Examples:
      automc list
      automc list runs
      automc list cache --clear
    """
    from automc.commands.inspect import list_command

    list_command(what, clear)


@app.command()
def doctor(
    name: Annotated[str, typer.Argument(help="An environment (automc list envs).")],
    overrides: Overrides = None,
    weights: Weights = None,
) -> None:
    """What automc understands of a network: layers, coupled groups, what can be pruned, and how long a search takes.

    Example:
      automc doctor resnet20_cifar10
    """
    from automc.commands.inspect import doctor_command

    doctor_command(name, tuple(overrides or ()), weights)


@app.command()
def data(
    action: Annotated[str, typer.Argument(help="get")],
    name: Annotated[str, typer.Argument(help="cifar10 or fashion_mnist")],
) -> None:
    """Fetch a public data set into the cache.

    Example:
      automc data get cifar10
    """
    from automc.commands.dense import data_command

    data_command(action, name)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="An environment (automc list envs).")],
    overrides: Overrides = None,
    out: Out = None,
) -> None:
    """Train an environment's dense network by its recipe, on the images that no search or selection sees.

    Resumable: the same command goes on after the last finished epoch.

    Example:
      automc train resnet20_cifar10 training.epochs=60
    """
    from automc.commands.dense import train_command

    train_command(name, tuple(overrides or ()), out)


app.command()(measure)


@app.command()
def apply(
    name: Annotated[str, typer.Argument(help="An environment (automc list envs).")],
    policy: Annotated[str, typer.Argument(help="A policy's JSON file, or uniform:KEEP,WEIGHT_BITS,ACTIVATION_BITS.")],
    overrides: Overrides = None,
    weights: Weights = None,
    out: Out = None,
) -> None:
    """Compress a network by a policy, without a search, and say what became of it.

    Writes policy.json, program.safetensors and a PyTorch module's weights.

    Examples:
      automc apply resnet20_cifar10 uniform:1.0,8,8 --out int8
      automc apply resnet20_cifar10 my_policy.json --out mine
    """
    from automc.commands.artifacts import apply_command

    apply_command(name, policy, tuple(overrides or ()), weights, out)


@app.command()
def tune(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="An environment (automc list envs).")],
    policy: Annotated[str, typer.Argument(help="A policy's JSON file, or uniform:KEEP,WEIGHT_BITS,ACTIVATION_BITS.")],
    overrides: Overrides = None,
    weights: Weights = None,
    epochs: Annotated[float, amount("The budget of all trials together.", 0)] = 20.0,
    seed: Annotated[int, typer.Option(min=0, help="The search's seed.")] = 0,
    out: Out = None,
    background: Annotated[
        bool, typer.Option(help="Go on in the background, whatever becomes of this terminal.")
    ] = False,
) -> None:
    """Search how a compressed network is best fine-tuned, and fine-tune it so.

    Learning rate, schedule, weight decay, distillation temperature and weight, by successive halving; a trial that goes
    on to the end is trained for the environment's finetuning.epochs. The same command goes on where a stopped or killed
    one was. At its end stands the command of a search that fine-tunes its winner by the best recipe.

    Examples:
      automc tune resnet20_cifar10 runs/resnet20_cifar10/resnet20_cifar10/winner/policy.json --epochs 30 --background
      automc tune resnet8_digits uniform:0.5,4,4 finetuning.epochs=9
    """
    from automc.commands.tune import tune_command

    tune_command(name, policy, tuple(overrides or ()), weights, epochs, seed, out, background, context.obj)


@app.command("compile")
def compile_(
    program: Annotated[Path, typer.Argument(help="A program.safetensors, or a folder that holds one.")],
    target: Target = None,
    compiler: Compiler = "zig",
    out: Out = None,
    explain: Annotated[bool, typer.Option(help="Print kernel, tile, bytes and speed of each layer.")] = False,
    onnx: Annotated[bool, typer.Option(help="Write the program as an ONNX model, too, for other runtimes.")] = False,
    threads: Annotated[int, typer.Option(help="How many threads compute at once, by a pool that you may replace.")] = 1,
) -> None:
    """Build the C library of a program for a target.

    Examples:
      automc compile runs/quickstart/resnet8_digits/winner --target portable --out portable
      automc compile mine --target neon
      automc compile mine --explain
      automc compile mine --threads 4
    """
    from automc.commands.artifacts import compile_command

    compile_command(program, target, compiler, out, explain, onnx, threads)


app.command()(bench)
app.command()(energy)


@app.command()
def verify(
    artifact: Annotated[Path, typer.Argument(help="A folder that `automc compile` or `automc run` wrote.")],
    images: Annotated[
        int, typer.Option(min=1, help="How many images to compare: random ones, or --env's first.")
    ] = 100,
    env: Annotated[str | None, typer.Option(help="Compare on this environment's test images, not random ones.")] = None,
) -> None:
    """Run a library and compare every logit with the reference interpreter.

    Examples:
      automc verify runs/quickstart/resnet8_digits/winner/library
      automc verify mine/library-avx2 --env resnet20_cifar10 --images 10000
    """
    from automc.commands.artifacts import verify_command

    verify_command(artifact, images, env)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="A run's folder or its name under runs/, or a tuning's.")],
) -> None:
    """What a run or a tuning has found so far, also while it is working.

    Examples:
      automc show quickstart
      automc show runs/tuned/resnet20_cifar10
    """
    from automc.commands.show import show_command

    show_command(folder)


@app.command()
def explain(
    folder: Annotated[Path, typer.Argument(help="A run's folder or its name under runs/, or a winner's folder.")],
) -> None:
    """What each choice of a winner bought, layer by layer: milliseconds, millijoules and bytes.

    Examples:
      automc explain quickstart
      automc explain runs/quickstart/resnet8_digits/winner
    """
    from automc.commands.explain import explain_command

    explain_command(folder)


@app.command()
def report(run_folder: Annotated[Path, typer.Argument(help="A run's folder or its name under runs/.")]) -> None:
    """Write a run's report again: one self-contained HTML page, and its tables as CSV and LaTeX.

    Example:
      automc report quickstart
    """
    from automc.commands.show import report_command

    report_command(run_folder)


@app.command()
def plot(
    run_folder: Annotated[Path, typer.Argument(help="A run's folder or its name under runs/.")],
    out: Out = None,
    formats: Annotated[str, typer.Option(help="Comma-separated: png, pdf, svg.")] = "png,pdf",
) -> None:
    """Draw a run's figures as files.

    Example:
      automc plot quickstart --formats svg --out figures
    """
    from automc.commands.show import plot_command

    plot_command(run_folder, out, formats)


def main() -> None:
    """Run a command; a fault that automc expects ends with one message and its exit code."""
    try:
        app()
    except AutomcError as error:
        from automc.commands.console import show_error

        show_error(error)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            print("\nStopped. Nothing that was written is lost: the same command goes on from here.", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
