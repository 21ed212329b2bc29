"""Energy of one inference from a stated model: operations, bytes moved and instructions times published energies, plus
static power.

It is a model, not a measurement: its use is to rank policies, and its coefficients stand in the table's header. What a
meter said of one network puts it in proportion, see `EnergyCoefficients.calibrated`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Self

from automc.cost.kernels import Kernel, Step
from automc.errors import TableError
from automc.files import suggest

_TILE = 4  # output pixels that share one load of a weight, and output channels one load of an activation


@dataclass(frozen=True)
class EnergyCoefficients:
    """What one elementary event costs, in picojoule (1e-12 J), and the power that flows anyway, in milliwatt."""

    multiply_8x8_pj: float
    add_int32_pj: float
    near_byte_pj: float  # first-level cache or scratch memory, per byte
    far_byte_pj: float  # second-level cache or on-chip memory, per byte
    static_mw: float
    source: str
    instruction_pj: float = 0.0  # to fetch, decode and issue one instruction, whatever it computes
    instructions_per_mac: float = 0.0

    @classmethod
    def from_header(cls, entries: Mapping[str, str], where: str) -> Self | None:
        """The coefficients of a table's header, None if it has none. Raises `TableError` for a part of them."""
        if not entries:
            return None
        known = [entry.name for entry in fields(cls)]
        for name in entries:
            if name not in known:
                raise TableError(f"{where}: unknown coefficient 'energy.{name}'{suggest(name, known)}")
        needed = [entry.name for entry in fields(cls) if entry.default is MISSING]
        if missing := [name for name in needed if name not in entries]:
            raise TableError(f"{where}: the header lacks {', '.join(f'energy.{name}' for name in missing)}")
        numbers = {}
        for name in entries:
            if name == "source":
                continue
            try:
                numbers[name] = float(entries[name])
            except ValueError:
                numbers[name] = -1.0
            if not 0 <= numbers[name] < float("inf"):
                raise TableError(f"{where}: energy.{name} must be a number >= 0. Got {entries[name]!r} instead.")
        return cls(**numbers, source=entries["source"])

    def to_header(self) -> dict[str, str]:
        """The entries that `from_header` reads."""
        return {entry.name: str(getattr(self, entry.name)) for entry in fields(self)}

    def calibrated(self, modelled: Energy, latency_ms: float, measured_mj: float, by: str) -> Self:
        """The coefficients by which a network that takes `modelled` in `latency_ms` takes what was measured, `by` whom.

        What the model lacks becomes static power; where it says too much, its dynamic energies shrink in proportion.
        """
        source = f"{self.source}; put in proportion to {measured_mj:.4g} mJ for one network, {by}"
        dynamic = modelled.total_mj - modelled.static_mj
        if measured_mj >= dynamic:
            return replace(self, static_mw=(measured_mj - dynamic) / latency_ms * 1e3, source=source)
        scaled = {
            entry.name: getattr(self, entry.name) * measured_mj / dynamic
            for entry in fields(self)
            if entry.name.endswith("_pj")
        }
        return replace(self, **scaled, static_mw=0.0, source=source)


# Horowitz, ISSCC 2014, 45 nm at 0.9 V. A byte is an eighth of a 64-bit access: 8 kB cache 10 pJ, 1 MB 100 pJ.
HOROWITZ = EnergyCoefficients(
    multiply_8x8_pj=0.2,
    add_int32_pj=0.1,
    near_byte_pj=1.25,
    far_byte_pj=12.5,
    static_mw=0.0,
    source=(
        "Horowitz, ISSCC 2014, 45 nm, 0.9 V; add_int32 and near_byte checked against a second source, multiply_8x8, "
        "far_byte and instruction not; static power is not known and left out"
    ),
    instruction_pj=70.0,
)

# Of a 3x3 layer of 16 or 64 channels with 8-bit weights and activations, counted exactly under emulation.
_INSTRUCTIONS_PER_MAC = {
    "avx2": 0.226, "neon": 0.370, "neondot": 0.154, "i8mm": 0.154, "armv7": 0.497, "cortexm4": 3.71, "rv64": 5.80,
    "rvv": 0.481,
}  # fmt: skip


def published_energies(target: str) -> EnergyCoefficients:
    """Horowitz' energies with the instructions of `target`, where they have been counted."""
    counted = _INSTRUCTIONS_PER_MAC.get(target)
    if counted is None:
        note = f"{HOROWITZ.source}; instructions of {target} were not counted and are left out"
        return replace(HOROWITZ, instruction_pj=0.0, source=note)
    return replace(HOROWITZ, instructions_per_mac=counted)


@dataclass(frozen=True)
class Energy:
    """One inference's energy by cause, in millijoule."""

    multiply_mj: float = 0.0
    add_mj: float = 0.0
    near_memory_mj: float = 0.0
    far_memory_mj: float = 0.0
    static_mj: float = 0.0
    instruction_mj: float = 0.0

    @property
    def total_mj(self) -> float:
        """The sum over all causes."""
        return float(sum(getattr(self, part.name) for part in fields(self)))

    def __str__(self) -> str:
        total = self.total_mj or 1.0
        shares = {part.name: getattr(self, part.name) / total for part in fields(self)}
        causes = ", ".join(f"{name[:-3].replace('_', ' ')} {share:.0%}" for name, share in shares.items() if share)
        return f"{self.total_mj:.4g} mJ ({causes})"

    def __add__(self, other: Energy) -> Energy:
        return Energy(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


def kernel_energy(kernel: Kernel, times: int, weight_bytes: int, coefficients: EnergyCoefficients) -> Energy:
    """What the work of one kernel costs, without static power.

    - A multiplication of w by a bits costs `w * a / 64` of one of 8 by 8 bits: the area of an array multiplier. (The
      published 8- and 32-bit multiplications, 0.2 and 3.1 pJ, are in that proportion.) Every product is one addition.
    - Far memory: every stored byte of the weights, and every element read and written, moves once.
    - Near memory: a loaded weight serves four pixels, and a loaded activation four output channels.
    - Instructions: as many for each product, or for each element where there are no weights, as the target has on
      average.
    """
    written = times * kernel.height * kernel.width * kernel.outputs
    read = times * kernel.source_pixels * kernel.inputs
    macs = times * kernel.macs
    adds = (macs or times * kernel.work) + (written if kernel.residual else 0)
    second = written if kernel.residual or kernel.operation == "sum" else 0
    multiply = macs * kernel.weight_bits * kernel.activation_bits / 64
    near = 2 * macs / _TILE + read + written + second
    far = read + written + second + weight_bytes
    return Energy(
        multiply_mj=multiply * coefficients.multiply_8x8_pj * 1e-9,
        add_mj=adds * coefficients.add_int32_pj * 1e-9,
        near_memory_mj=near * coefficients.near_byte_pj * 1e-9,
        far_memory_mj=far * coefficients.far_byte_pj * 1e-9,
        instruction_mj=(macs or times * kernel.work)
        * coefficients.instructions_per_mac
        * coefficients.instruction_pj
        * 1e-9,
    )


def static_energy(latency_ms: float, coefficients: EnergyCoefficients) -> Energy:
    """Static power over the duration of one inference."""
    return Energy(static_mj=coefficients.static_mw * latency_ms * 1e-3)


def energy_of(
    steps: Sequence[Step], weight_bytes: Sequence[int], latency_ms: float, coefficients: EnergyCoefficients
) -> Energy:
    """One inference: its `steps`, each of which stores `weight_bytes`, and the static power over `latency_ms`."""
    total = static_energy(latency_ms, coefficients)
    for step, stored in zip(steps, weight_bytes, strict=True):
        total += kernel_energy(step.kernel, step.times, stored, coefficients)
    return total
