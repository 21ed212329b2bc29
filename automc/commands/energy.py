"""`automc energy`: what a meter says of a library, beside what a table's model says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from automc.catalog import find
from automc.commands.console import say
from automc.errors import InputError

if TYPE_CHECKING:
    from automc.compiler.artifact import Artifact
    from automc.cost.power import Metered


def energy_command(
    artifact: Path, table: str | None, seconds: float, trace: Path | None, inferences: int | None, out: Path | None
) -> None:
    """Meter a library here or read a meter's trace, compare with the model, and put the model in proportion."""
    from automc.compiler.artifact import open_artifact
    from automc.cost.power import meter_trace, modelled_energy
    from automc.cost.table import read_table, write_table

    if (trace is None) != (inferences is None):
        raise InputError("--trace and --inferences go together: the run that the meter saw, and how much it computed")
    if out is not None and table is None:
        raise InputError("--out writes the table of --table with its energy model put in proportion; name that table")
    opened = open_artifact(artifact)
    known = None if table is None else read_table(find("latency_tables", table))
    modelled = None if known is None else modelled_energy(opened.program(), known)
    if known is not None and known.energy is not None and modelled is not None:
        say(f"model      {modelled[0]}; {known.energy.source}")
    if trace is not None and inferences is not None:
        metered = meter_trace(trace, inferences, seconds)
    else:
        metered = _meter_here(opened, seconds)
    say(
        f"measured   {metered.inference_mj:.4g} mJ an inference, {metered.above_idle_mj:.4g} mJ of it above idle "
        f"({metered.idle_watts:.3g} W); {metered.inferences} inferences in {metered.seconds:.4g} s, {metered.by}"
    )
    if out is not None and known is not None and known.energy is not None and modelled is not None:
        energy = known.energy.calibrated(*modelled, metered.inference_mj, metered.by)
        write_table(replace(known, energy=energy), out)
        say(f"written to {out}")


def _meter_here(artifact: Artifact, seconds: float) -> Metered:
    import numpy as np

    from automc.cost.power import meter_here

    library = artifact.load()
    pixels = np.full((1, *library.program.image_shape), 127, np.uint8)
    library.run(pixels)

    def run() -> None:
        library.run(pixels)

    return meter_here(run, seconds)
