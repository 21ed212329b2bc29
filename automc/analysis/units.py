"""How each metric is called, in what unit a person reads it, and how many digits are worth showing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """A metric as a person reads it: shown is the metric's value divided by `divisor`.

    `thousandth` is the unit that a sentence takes for small values.
    """

    name: str
    unit: str
    divisor: float = 1.0
    thousandth: str = ""

    @property
    def label(self) -> str:
        """For an axis or the head of a column."""
        return f"{self.name} ({self.unit})"

    def show(self, value: float) -> str:
        """Three significant digits, with the unit."""
        shown = value / self.divisor
        if self.thousandth and shown < 0.1:
            return f"{digits(1000 * shown)} {self.thousandth}"
        return f"{digits(shown)} {self.unit}"


QUANTITIES = {
    "latency_ms": Quantity("latency", "ms", thousandth="µs"),
    "energy_mj": Quantity("energy", "mJ", thousandth="µJ"),
    "size_bytes": Quantity("size", "KiB", 1024),
    "peak_memory_bytes": Quantity("peak memory", "KiB", 1024),
    "macs": Quantity("MACs", "million", 1e6),
}


def digits(value: float) -> str:
    """Three significant digits without an exponent: 0.0123, 1.23, 12.3, 1,234."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".") if abs(value) >= 1e-4 else f"{value:.2e}"
