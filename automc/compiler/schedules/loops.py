"""Loops over neighbouring values, vector by vector."""

from __future__ import annotations

from automc.compiler.isa import LANES


def vectors(index: str, length: int, body: str) -> list[str]:
    """A loop over `index`: `body` for every `LANES` values of `length` and for those that remain; `COUNT` is their number."""
    whole = length // LANES * LANES
    lines = []
    if whole:
        lines.append(
            f"for (int {index} = 0; {index} < {whole}; {index} += {LANES}) {body.replace('COUNT', str(LANES))}"
        )
    if whole < length:
        lines.append(f"{{ const int {index} = {whole}; {body.replace('COUNT', str(length - whole))} }}")
    return lines
