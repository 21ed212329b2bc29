"""Latency tables: CSV with a header of `#` lines, one kernel a row; `pandas.read_csv(path, comment="#")` reads them."""

from __future__ import annotations

import csv
import datetime
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast, get_args

from automc.compiler.isa import LANES, STEP
from automc.compression.windows import Encoding
from automc.cost.energy import EnergyCoefficients, published_energies
from automc.cost.kernels import ENCODINGS, OPERATIONS, Kernel, OperationName
from automc.errors import TableError
from automc.files import sha256_of, suggest, write_atomic

Source = Literal["measured", "simulated", "imported"]
_KEY = Kernel._fields
_COLUMNS = (*_KEY, "latency_ms", "spread_ms", "count", "source")
_WITH_BITS = ("convolve", "depthwise")
_NUMBERS = tuple(name for name in _KEY if name not in ("operation", "encoding"))
_BITS = ("weight_bits", "activation_bits")
_LATER = ("dilation_height", "dilation_width")  # columns that stand only where a kernel needs them


@dataclass(frozen=True)
class Row:
    """One kernel: its latency, the interquartile range of its timings, and how many there were.

    Of a simulated one the latency is the middle of a bracket that is `spread_ms` wide, and there is one.
    """

    kernel: Kernel
    latency_ms: float
    spread_ms: float
    count: int
    source: Source


@dataclass(frozen=True)
class Header:
    """What a table's numbers were taken on. A field of text may be anything on one line."""

    device: str
    cpu: str
    target: str  # the instruction set whose kernels were timed
    compiler: str
    flags: str
    date: str
    threads: int = 1
    output_tile: int = 1  # output channels that one panel of the kernels computes
    input_tile: int = 1  # input channels that one step of the kernels consumes
    overhead_ms: float = 0.0  # of one call of the library, whatever the network
    reference_ms: float = 0.0  # of the reference kernel that the others were compared with; 0 where there was none
    calibration: float = 1.0  # what simulated rows were multiplied by, so that they agree with measured ones
    notes: str = ""


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """What the kernels of one target take on one device."""

    header: Header
    energy: EnergyCoefficients | None
    rows: tuple[Row, ...]

    @cached_property
    def by_kernel(self) -> Mapping[Kernel, Row]:
        """The row of each kernel."""
        return {row.kernel: row for row in self.rows}

    @cached_property
    def sha256(self) -> str:
        """The checksum of the rows' text."""
        return sha256_of(_rows_text(self.rows).encode())

    def extended(self, rows: Iterable[Row]) -> LatencyTable:
        """The table with further `rows`; a row of the same kernel is replaced."""
        merged = {**self.by_kernel, **{row.kernel: row for row in rows}}
        return replace(self, rows=tuple(merged[kernel] for kernel in sorted(merged)))

    def calibrated(self, rows: Sequence[Row]) -> LatencyTable:
        """The table with measured `rows`; simulated ones take the median factor between the two where both are known.

        So one timing on a device makes a measure of what was only a ranking.
        """
        pairs = [(row, self.by_kernel[row.kernel]) for row in rows if row.kernel in self.by_kernel]
        factors = [row.latency_ms / known.latency_ms for row, known in pairs if known.source == "simulated"]
        if not factors:
            return self.extended(rows)
        factor = statistics.median(factors)
        simulated = [
            replace(row, latency_ms=row.latency_ms * factor, spread_ms=row.spread_ms * factor)
            for row in self.rows
            if row.source == "simulated"
        ]
        header = replace(self.header, calibration=self.header.calibration * factor)
        return replace(self, header=header).extended(simulated).extended(rows)

    def at_reference(self, reference_ms: float) -> LatencyTable:
        """The table if its reference takes `reference_ms`.

        Rows are known as multiples of the reference, but those that were timed without one, which stay as they are.
        """
        if not self.header.reference_ms:
            return replace(self, header=replace(self.header, reference_ms=reference_ms))
        factor = reference_ms / self.header.reference_ms
        rows = tuple(
            replace(row, latency_ms=row.latency_ms * factor, spread_ms=row.spread_ms * factor) for row in self.rows
        )
        return replace(self, header=replace(self.header, reference_ms=reference_ms), rows=rows)


def empty_table(device: str, cpu: str, target: str, compiler: str, flags: Iterable[str], notes: str) -> LatencyTable:
    """A table of today without rows, for the project's own kernels, with published energies."""
    header = Header(
        device=device,
        cpu=cpu,
        target=target,
        compiler=compiler,
        flags=" ".join(flags),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        output_tile=LANES,
        input_tile=STEP,
        notes=notes,
    )
    return LatencyTable(header, published_energies(target), ())


def write_table(table: LatencyTable, path: Path) -> None:
    """Write the table, all of it or nothing."""
    write_atomic(path, table_text(table))


def table_text(table: LatencyTable, sealed: bool = True) -> str:
    """The text of a table; one that is not `sealed` has no checksum, so that rows can be added behind it."""
    entries = {entry.name: str(getattr(table.header, entry.name)) for entry in fields(Header)}
    entries["units"] = "latency_ms and spread_ms in milliseconds; height and width in pixels; bits in bits"
    if table.energy:
        entries |= {f"energy.{name}": value for name, value in table.energy.to_header().items()}
    if sealed:
        entries["sha256"] = table.sha256
    # pandas reads a '#' inside a line as a comment, and a header entry is one line.
    head = "".join(f"# {name}: {' '.join(value.split())}\n" for name, value in entries.items())
    return head + _rows_text(table.rows)


def read_table(path: Path) -> LatencyTable:
    """Read a table. Raises `TableError`, with line and column, for anything that a table may not say."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f"cannot read {path}: {error}") from error
    return parse_table(text, str(path))


def parse_table(text: str, path: str) -> LatencyTable:
    """The table of a text that `path` names in errors. Raises as `read_table`."""
    lines = text.splitlines()
    first_row = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    header, energy, checksum = _read_header(lines[:first_row], path)
    rows = _read_rows(lines[first_row:], first_row + 1, path)
    if checksum and checksum != sha256_of(("\n".join(lines[first_row:]) + "\n").encode()):
        raise TableError(
            f"{path}: the rows were changed after the table was written (sha256 differs); "
            "measure again, or remove the line '# sha256' if you changed them on purpose"
        )
    return LatencyTable(header, energy, rows)


def key_cells(kernel: Kernel) -> list[int | str]:
    """What a row says of its kernel."""
    return [int(value) if isinstance(value, bool) else value for value in kernel]


def _rows_text(rows: Sequence[Row]) -> str:
    """With the columns that these rows need, or all of them for rows that are still to come."""
    needed = max((len(row.kernel.key) for row in rows), default=len(_KEY))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_KEY[:needed], *_COLUMNS[len(_KEY) :]])
    for row in rows:
        writer.writerow(
            [*key_cells(row.kernel)[:needed], f"{row.latency_ms:.6g}", f"{row.spread_ms:.3g}", row.count, row.source]
        )
    return text.getvalue()


def _read_header(lines: list[str], path: str) -> tuple[Header, EnergyCoefficients | None, str]:
    entries: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, colon, value = line[1:].partition(":")
        if not colon:
            raise TableError(f"{path}:{number}: a header line has the form '# name: value'. Got {line!r} instead.")
        if name.strip() in entries:
            raise TableError(f"{path}:{number}: '{name.strip()}' stands twice in the header")
        entries[name.strip()] = value.strip()
    checksum = entries.pop("sha256", "")
    entries.pop("units", None)
    energy = {name.removeprefix("energy."): entries.pop(name) for name in [*entries] if name.startswith("energy.")}
    known = [entry.name for entry in fields(Header)]
    for name in entries:
        if name not in known:
            raise TableError(f"{path}: unknown header entry '{name}'{suggest(name, known)}")
    for name in ("device", "cpu", "target", "compiler", "flags", "date"):
        if name not in entries:
            raise TableError(f"{path}: the header lacks '# {name}: ...'")
    where = f"{path}: header entry"
    numbers: dict[str, float] = {
        name: _number(entries.pop(name), int, 1, None, f"{where} '{name}'")
        for name in ("threads", "output_tile", "input_tile")
        if name in entries
    }
    for name in ("overhead_ms", "reference_ms", "calibration"):
        if name in entries:
            numbers[name] = _number(entries.pop(name), float, 0, None, f"{where} '{name}'")
    header = Header(**cast(dict[str, Any], {**entries, **numbers}))
    return header, EnergyCoefficients.from_header(energy, path), checksum


def _read_rows(lines: list[str], first_line: int, path: str) -> tuple[Row, ...]:
    if not lines:
        raise TableError(f"{path}: there are no rows (columns: {', '.join(_COLUMNS)})")
    columns = lines[0].split(",")
    for name in columns:
        if name not in _COLUMNS:
            raise TableError(f"{path}:{first_line}: unknown column '{name}'{_unit_hint(name)}")
    if missing := [name for name in _COLUMNS if name not in columns and name not in _LATER]:
        raise TableError(f"{path}:{first_line}: missing column {', '.join(missing)}")
    if len(set(columns)) < len(columns):
        raise TableError(f"{path}:{first_line}: a column appears twice")
    rows: dict[Kernel, Row] = {}
    places: dict[Kernel, int] = {}
    for number, line in enumerate(lines[1:], first_line + 1):
        values = line.split(",")
        if len(values) != len(columns):
            raise TableError(f"{path}:{number}: has {len(values)} values for {len(columns)} columns")
        row = _read_row(dict(zip(columns, values, strict=True)), f"{path}:{number}")
        if row.kernel in rows:
            raise TableError(f"{path}:{number}: the same kernel as in line {places[row.kernel]}")
        rows[row.kernel], places[row.kernel] = row, number
    return tuple(rows.values())


def _read_row(values: Mapping[str, str], where: str) -> Row:
    for column, known in (("operation", OPERATIONS), ("encoding", ENCODINGS), ("source", get_args(Source))):
        if values[column] not in known:
            given = values[column]
            raise TableError(f"{where}: column {column}: unknown {given!r}{suggest(given, known)}")
    operation = values["operation"]
    numbers = {}
    for column in (name for name in _NUMBERS if name in values):
        bits = column in _BITS
        lowest = int(operation in _WITH_BITS) if bits else int(column != "residual")
        highest = (8 * lowest) if bits else {"residual": 1, "density_percent": 100}.get(column)
        numbers[column] = _number(values[column], int, lowest, highest, f"{where}: column {column}")
    latency = _number(values["latency_ms"], float, 0, None, f"{where}: column latency_ms")
    if latency == 0:
        raise TableError(f"{where}: column latency_ms: no kernel takes no time")
    spread = _number(values["spread_ms"], float, 0, None, f"{where}: column spread_ms")
    count = _number(values["count"], int, 1, None, f"{where}: column count")
    residual = bool(numbers.pop("residual"))
    encoding = cast(Encoding, values["encoding"])
    kernel = Kernel(
        cast(OperationName, operation), **cast(dict[str, int], numbers), residual=residual, encoding=encoding
    )
    return Row(kernel, latency, spread, int(count), cast(Source, values["source"]))


def _number(text: str, kind: type[int] | type[float], lowest: float, highest: float | None, where: str) -> float:
    try:
        value: float = kind(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= lowest and (highest is None or value <= highest)):
        allowed = f">= {lowest}" if highest is None else (f"{lowest}" if highest == lowest else f"{lowest}..{highest}")
        name = "a whole number" if kind is int else "a number"
        raise TableError(f"{where}: must be {name} {allowed}. Got {text!r} instead.")
    return value


def _unit_hint(name: str) -> str:
    stem, _, unit = name.rpartition("_")
    for column in ("latency_ms", "spread_ms"):
        if unit in ("us", "ns", "s") and column.startswith(f"{stem}_"):
            return f": the unit is milliseconds; convert the values and name the column {column}"
    return suggest(name, _COLUMNS)
