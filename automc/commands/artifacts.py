"""`automc apply`, `automc compile`, `automc verify`: a policy to a program, a program to a library, a library tried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from automc.catalog import require_name
from automc.commands.console import note, say
from automc.commands.specs import open_problem
from automc.errors import InputError, PolicyError, RunnerError

if TYPE_CHECKING:
    from automc.compiler.artifact import Artifact
    from automc.compression.policy import Policy
    from automc.compression.program import Program
    from automc.network.graph import Network

_PROGRAM = "program.safetensors"
_EMULATED_IMAGES = 3  # that a library for another processor is tried on; emulators are slow


def apply_command(name: str, policy: str, overrides: tuple[str, ...], weights: Path | None, out: Path | None) -> None:
    """Compress by a policy and write what came of it."""
    from safetensors.torch import save

    from automc.compression.export import to_torch
    from automc.environment.evaluator import Evaluator
    from automc.files import write_atomic

    policy_of = read_policy(policy)  # before the host is measured
    problem = open_problem(name, overrides, weights)
    chosen = policy_of(problem.network).normalised(problem.network)
    evaluator = Evaluator(problem, "sequential")
    program = evaluator.program(chosen)
    metrics = evaluator.judge(program, chosen, "selection")
    folder = out or Path("runs") / "applied" / name
    write_atomic(folder / "policy.json", chosen.to_json())
    program.save(folder / _PROGRAM)
    module = {name: value.contiguous() for name, value in to_torch(program).state_dict().items()}
    write_atomic(folder / "module.safetensors", save(module))
    reading = problem.metric.reading
    say(f"{reading.title:10s} {reading.show(metrics.quality)} on {len(problem.splits.selection)} selection images "
        f"({reading.show(metrics.quality + metrics.quality_loss)} dense in float32)")  # fmt: skip
    say(f"latency    {metrics.latency_ms:.4f} ms (predicted; dense at 8 bits {problem.dense_cost.latency_ms:.4f} ms)")
    say(f"weights    {metrics.size_bytes} bytes (dense at 8 bits {problem.dense_cost.size_bytes})")
    say(f"MACs       {metrics.macs} ({metrics.macs / problem.dense_cost.macs:.1%} of the dense network's)")
    say(f"written to {folder}; build its library with: automc compile {folder}")


def read_policy(text: str) -> Callable[[Network], Policy]:
    """What `text` names, for any network. Raises `PolicyError` for what is wrong whatever the network is."""
    from automc.choices import Uniform
    from automc.compression.policy import Policy, uniform_policy

    if text.startswith("uniform:"):
        try:
            ratio, *bits = text.removeprefix("uniform:").split(",")
            weight_bits, activation_bits = (Uniform(weight_bits=int(count)).weight_bits for count in bits)
            keep_ratio = Policy(keep_ratio={"all": float(ratio)}).keep_ratio["all"]
        except ValueError as error:
            raise PolicyError(
                f"policy '{text}' must have the form uniform:KEEP_RATIO,WEIGHT_BITS,ACTIVATION_BITS with a ratio in "
                "(0, 1] and bits in 1..8, as in uniform:0.75,6,7"
            ) from error
        return lambda network: uniform_policy(network, keep_ratio, weight_bits, activation_bits)
    try:
        content = Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PolicyError(
            f"cannot read the policy {text}: {reason}; a policy is a JSON file or "
            "uniform:KEEP_RATIO,WEIGHT_BITS,ACTIVATION_BITS"
        ) from error
    policy = Policy.from_json(content, text)
    return lambda network: policy


def compile_command(
    program: Path, target: str | None, compiler: str, out: Path | None, explain: bool, onnx: bool, threads: int = 1
) -> None:
    """Build a library, and on request say which kernel each layer got."""
    from automc.compiler.artifact import compile_program
    from automc.compiler.targets import TARGETS, host_target, runs_here
    from automc.compiler.verify import verify
    from automc.compression.program import Program

    path = program / _PROGRAM if program.is_dir() else program
    if not path.is_file():
        raise InputError(f"there is no program at {path}; automc run and automc apply write one")
    loaded = Program.load(path)
    chosen = target or host_target()
    folder = out or path.parent / f"library-{chosen}"
    artifact = compile_program(loaded, chosen, folder, compiler, threads)
    if onnx:
        from automc.compiler.interchange import write_onnx

        write_onnx(loaded, folder / "model.onnx")
    if explain:
        _explain(artifact, loaded)
    for line in artifact.summary():
        say(line)
    meant = TARGETS[chosen]
    if meant.machines and not runs_here(meant):
        try:
            verification = verify(artifact, loaded, _random_images(loaded, _EMULATED_IMAGES))
        except RunnerError as error:
            note(f"not verified: {error}")
        else:
            verification.require_equal()
            say(f"verified under emulation on {verification.images} inputs ({verification.machine})")
    say(f"written to {folder}; try it with: automc verify {folder}")


def _explain(artifact: Artifact, program: Program) -> None:
    """Say of each layer what was chosen for it, and how fast it is."""
    from automc.compiler.explain import explain
    from automc.compiler.targets import find_target, runs_here
    from automc.cost.energy import published_energies
    from automc.cost.rates import rates, table_for

    table = table_for(artifact.target)
    library = artifact.load() if runs_here(find_target(artifact.target)) else None
    for row, rate in zip(explain(program, artifact.target), rates(program, table, library), strict=True):
        say(f"{row}  {rate}".rstrip())
    if table is not None:
        say(f"estimates by the table {table.header.device}, of one thread on {table.header.cpu}")
    elif counted := published_energies(artifact.target).instructions_per_mac:
        say(f"no table of {artifact.target}: it takes about {counted} instructions for each multiply-accumulate "
            "of a 3x3 layer of 8 bits, as counted under emulation")  # fmt: skip
    else:
        say(f"no table of {artifact.target}, and so no estimates")


def bench_command(artifact: Path, device: str, cpu: str, load: float, out: Path | None) -> None:
    """Write the program that a device runs."""
    from automc.compiler.artifact import open_artifact
    from automc.cost.bench import build_bench

    require_name(device, "--device")
    opened = open_artifact(artifact)
    path = out or artifact / f"bench-{device}"
    build_bench(opened, device, cpu, path, load)
    say(f"written to {path}; on the device: ./{path.name} > {device}.csv")


def verify_command(artifact: Path, images: int, env: str | None) -> None:
    """Compare a library with the interpreter on random or real images. Raises `VerificationError` where they differ."""
    from automc.compiler.artifact import open_artifact
    from automc.compiler.verify import verify

    opened = open_artifact(artifact)
    program = opened.program()
    if env is None:
        pixels = _random_images(program, images)
        kind = "random images"
    else:
        from automc.commands.specs import read_environment
        from automc.environment.loading import open_dataset

        spec, file = read_environment(env)
        pixels = open_dataset(spec, file).test.pixels[:images]
        kind = f"test images of {spec.data.name}"
    note(f"comparing {opened.target} with the interpreter on {len(pixels)} {kind} ...")
    verification = verify(opened, program, pixels)
    verification.require_equal()
    where = f", under emulation ({verification.machine})" if verification.machine else ""
    say(f"{verification.images} images, {verification.logits} output values, {verification.different} different{where}")


def _random_images(program: Program, count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, *program.image_shape), np.uint8)
