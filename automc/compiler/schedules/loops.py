"""Loops over neighbouring values, vector by vector."""

from __future__ import annotations

from automc.compiler.isa import LANES


def vectors(index: str, length: int, body: str) -> list[str]:
    """A loop over `index`: `body` for every `LANES` of `length` values and for those that remain, `COUNT` at a time."""
    whole = length // LANES * LANES
    lines = []
    if whole:
        lines.append(
            f"for (int {index} = 0; {index} < {whole}; {index} += {LANES}) {body.replace('COUNT', str(LANES))}"
        )
    if whole < length:
        lines.append(f"{{ const int {index} = {whole}; {body.replace('COUNT', str(length - whole))} }}")
    return lines
