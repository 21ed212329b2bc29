"""The commands about devices as the command line declares them: `automc measure`, `automc bench`, `automc energy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from automc.commands.options import Target, amount


def measure(
    names: Annotated[list[str], typer.Argument(help="Environments whose kernels are timed.")],
    target: Target = None,
    out: Annotated[Path | None, typer.Option(help="The table to write to, or to go on with (a CSV file).")] = None,
    minutes: Annotated[float, amount("Stop after about this long.", 0.1)] = 5.0,
    device: Annotated[str | None, typer.Option(help="The name of another device, which --runner reaches.")] = None,
    cpu: Annotated[str | None, typer.Option(help="The device's processor, for the table.")] = None,
    runner: Annotated[
        str | None, typer.Option(help="Commands, joined by &&, that take {program} to the device and run it there.")
    ] = None,
    timeout: Annotated[float, amount("Seconds after which a command of the runner hangs.", 1)] = 300.0,
    tries: Annotated[int, typer.Option(min=1, help="How often a failing runner is tried.")] = 3,
) -> None:
    """Time the kernels that environments need, here or on a device, and write a latency table.

    The same command goes on where a stopped or killed one was. A table that was made elsewhere needs no command: put it
    into your folder latency_tables/, its rows' source being "imported", and see automc check.

    Examples:
      automc measure resnet20_cifar10 --out latency_tables/my_board.csv
      automc measure resnet20_cifar10 --device pi4 --target neon --runner "scp {program} pi4:bench && ssh pi4 ./bench"
      automc measure resnet20_cifar10 --device a76 --target neondot --runner "qemu-aarch64 -cpu cortex-a76 {program}"
    """
    from automc.commands.measure import measure_command

    measure_command(names, target, out, minutes, device, cpu, runner, timeout, tries)


def bench(
    artifact: Annotated[Path, typer.Argument(help="A folder that `automc compile` or `automc run` wrote.")],
    device: Annotated[str, typer.Option(help="The name of the device's table.")] = "device",
    cpu: Annotated[str, typer.Option(help="The device's processor, for the table.")] = "unknown",
    load: Annotated[
        float, amount("Compute for so many seconds at the end, for a power meter to see.", 0, 86_400)
    ] = 0.0,
    out: Annotated[Path | None, typer.Option(help="The file to write.")] = None,
) -> None:
    """Write a program that checks a library on a device and prints a latency table of its kernels.

    Copy it there, run it, and keep what it prints as DEVICE.csv in your folder latency_tables/.

    Examples:
      automc compile mine --target neon --out mine-neon
      automc bench mine-neon --device pi4 --cpu "Cortex-A72" --out bench-pi4
      scp bench-pi4 pi4: && ssh pi4 ./bench-pi4 > latency_tables/pi4.csv
    """
    from automc.commands.artifacts import bench_command

    bench_command(artifact, device, cpu, load, out)


def energy(
    artifact: Annotated[Path, typer.Argument(help="A folder that `automc compile` or `automc run` wrote.")],
    table: Annotated[str | None, typer.Option(help="A latency table whose energy model is compared.")] = None,
    seconds: Annotated[float, amount("How long it runs, or ran on the device.", 0.1)] = 10.0,
    trace: Annotated[Path | None, typer.Option(help="A power meter's CSV file: time_s,watts.")] = None,
    inferences: Annotated[int | None, typer.Option(min=1, help="With --trace: how often the device computed.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table with its model put in proportion.")] = None,
) -> None:
    """What one inference takes in millijoules: by this machine's counters (RAPL), or by a power meter's trace.

    The trace shows a run of `automc bench --load`; the clocks need not agree.

    Examples:
      automc energy mine --table epyc_zen5_avx2
      automc energy mine-neon --trace meter.csv --seconds 20.1 --inferences 51234 --table pi4 --out pi4.csv
    """
    from automc.commands.energy import energy_command

    energy_command(artifact, table, seconds, trace, inferences, out)
