"""`automc measure`: a latency table of this machine, or of a device that commands reach."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from automc.catalog import find, require_name
from automc.commands.console import note, say
from automc.commands.specs import read_environment
from automc.errors import InputError
from automc.reading import read_spec
from automc.schema import SearchSpaceSpec

if TYPE_CHECKING:
    from automc.cost.measure import Need


def measure_command(
    names: list[str],
    target: str | None,
    out: Path | None,
    minutes: float,
    device: str | None,
    cpu: str | None,
    runner: str | None,
    timeout: float,
    tries: int,
) -> None:
    """Time the kernels that the named environments and their search spaces need, into one table."""
    from automc.compiler.targets import find_target, host_target
    from automc.cost.device import measure_host
    from automc.cost.measure import measure
    from automc.cost.remote import Runner, measure_device

    chosen = target or host_target()
    find_target(chosen)  # refuses an unknown name before anything is loaded
    if device is None and runner is None:
        needs = _needs(names)
        if out is None:
            out = measure_host(chosen, needs, note, 60 * minutes)
        else:
            measure(needs, chosen, out, note, 60 * minutes)
    elif device is None or runner is None or target is None:
        raise InputError(
            "to measure on a device, say its name, its instruction set and how a program is run there: --device pi4 "
            "--target neon --runner 'scp {program} pi4:bench && ssh pi4 ./bench'"
        )
    else:
        require_name(device, "--device")
        out = out or Path("latency_tables") / f"{device}.csv"
        ways = Runner.parse(runner, timeout, tries)
        measure_device(_needs(names), device, target, ways, out, note, 60 * minutes, cpu)
    say(str(out))


def _needs(names: list[str]) -> list[Need]:
    """The environments' networks, without their weights, and their search spaces."""
    from automc.environment.loading import open_dataset
    from automc.network.trace import trace
    from automc.network.zoo import build_network

    needs = []
    for name in names:
        spec, file = read_environment(name)
        space = read_spec(SearchSpaceSpec, find("search_spaces", spec.search_space))
        dataset = open_dataset(spec, file)
        _, height, width, channels = dataset.train.pixels.shape
        module = build_network(spec.network, len(dataset.classes), channels)
        needs.append((trace(module, (channels, height, width), dataset.mean, dataset.std, spec.network), space))
    return needs
