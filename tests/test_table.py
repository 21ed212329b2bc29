"""Latency tables: written, read back, read by pandas, and refused with line and column where they are malformed."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from automc import catalog
from automc.cost.energy import HOROWITZ
from automc.cost.kernels import Kernel
from automc.cost.table import LatencyTable, read_table, write_table
from automc.errors import TableError
from tests.cost_examples import HEADER, row, table_for

CONV = Kernel("convolve", 8, 8, 16, 32, 3, 3, 2, 2, 4, 8, True)
SUM = Kernel("sum", 8, 8, 16, 16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "bench.csv"
    write_table(table_for({CONV: 0.25, SUM: 0.0125}, overhead_ms=0.5), path)
    return path


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, text
    lines = [line for line in text.replace(old, new).splitlines() if not line.startswith("# sha256")]
    path.write_text("\n".join(lines) + "\n")


def test_a_table_reads_back_as_it_was_written(path: Path) -> None:
    table = read_table(path)
    assert table.header.device == "bench"
    assert table.header.overhead_ms == 0.5
    assert (table.header.output_tile, table.header.input_tile) == (8, 4)
    assert table.energy == HOROWITZ
    assert table.by_kernel == {CONV: row(CONV, 0.25), SUM: row(SUM, 0.0125)}


def test_a_dilation_has_columns_only_where_a_kernel_has_one(path: Path) -> None:
    assert "dilation" not in path.read_text()
    dilated = CONV._replace(dilation_height=2, dilation_width=3)
    table = read_table(path).extended([row(dilated, 0.5)])
    write_table(table, path)
    assert read_table(path).by_kernel == table.by_kernel
    assert {kernel: known.latency_ms for kernel, known in table.by_kernel.items()}[CONV] == 0.25


def test_pandas_reads_it_in_one_line(path: Path) -> None:
    frame = pd.read_csv(path, comment="#")
    assert frame.loc[frame["operation"] == "convolve", "latency_ms"].tolist() == [0.25]
    assert frame["residual"].tolist() == [1, 0]


def test_further_rows_join_and_replace(path: Path) -> None:
    other = SUM._replace(outputs=8, inputs=8)
    table = read_table(path).extended([row(SUM, 0.5), row(other, 0.25)])
    assert {kernel: known.latency_ms for kernel, known in table.by_kernel.items()} == {
        CONV: 0.25,
        SUM: 0.5,
        other: 0.25,
    }


def test_another_reference_rescales_all_rows(path: Path) -> None:
    header = replace(HEADER, reference_ms=2.0)
    table = replace(read_table(path), header=header).at_reference(1.0)
    assert table.header.reference_ms == 1.0
    assert table.by_kernel == {CONV: row(CONV, 0.125), SUM: row(SUM, 0.00625)}


def test_rows_that_were_timed_without_a_reference_stay_as_they_are(path: Path) -> None:
    table = replace(read_table(path), header=replace(HEADER, reference_ms=0.0))
    assert table.at_reference(1.0).rows == table.rows
    assert table.at_reference(1.0).header.reference_ms == 1.0


def test_a_header_entry_stays_on_its_line(tmp_path: Path) -> None:
    header = replace(HEADER, notes="two\nlines, and a colon: here")
    write_table(LatencyTable(header, None, (row(SUM, 1.0),)), tmp_path / "t.csv")
    assert read_table(tmp_path / "t.csv").header.notes == "two lines, and a colon: here"


def test_changed_rows_are_refused(path: Path) -> None:
    path.write_text(path.read_text().replace("0.25", "0.20"))
    with pytest.raises(TableError, match="sha256 differs"):
        read_table(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.25,", "nan,", r":24: column latency_ms: must be a number >= 0\. Got 'nan'"),
        ("0.25,", "-0.25,", r":24: column latency_ms: must be a number >= 0"),
        ("0.25,", "0,", r":24: column latency_ms: no kernel takes no time"),
        ("0.25,", "fast,", r":24: column latency_ms: .* Got 'fast'"),
        ("8,8,16,32", "8,-8,16,32", r":24: column width: must be a whole number >= 1"),
        ("2,2,4,8,1", "2,2,9,8,1", r":24: column weight_bits: must be a whole number 1\.\.8"),
        ("2,2,4,8,1", "2,2,4,8,2", r":24: column residual: .* 0\.\.1"),
        ("dense,100,0.25", "denser,100,0.25", r":24: column encoding: unknown 'denser'\. Did you mean 'dense'\?"),
        ("dense,100,0.25", "blocks,101,0.25", r":24: column density_percent: must be a whole number 1\.\.100"),
        ("1,1,0,0,0", "1,1,4,0,0", r":25: column weight_bits: must be a whole number 0"),
        ("convolve", "convolv", r":24: column operation: unknown 'convolv'\. Did you mean 'convolve'\?"),
        ("latency_ms,", "latency_us,", r":23: unknown column 'latency_us': the unit is milliseconds"),
        ("count,", "counts,", r":23: unknown column 'counts'\. Did you mean 'count'\?"),
        ("count,source", "count", r":23: missing column source"),
        ("count,source", "count,count", r":23: missing column source"),
        ("100,measured\nsum", "100,measured,7\nsum", r":24: has 19 values for 18 columns"),
        ("sum,8,8,16,16,1,1,1,1,0,0,0,", "convolve,8,8,16,32,3,3,2,2,4,8,1,", r":25: the same kernel as in line 24"),
        ("# device: bench\n", "", r"the header lacks '# device: ...'"),
        ("# overhead_ms: 0.5", "# overhead_ms: nan", r"header entry 'overhead_ms': must be a number >= 0"),
        ("# threads: 1", "# threads: 0", r"header entry 'threads': must be a whole number >= 1"),
        ("# device:", "# devise: bench\n# device:", r"unknown header entry 'devise'\. Did you mean 'device'\?"),
        ("# device:", "# target: x\n# device:", r":\d+: 'target' stands twice"),
        ("# device:", "# remark\n# device:", r":1: a header line has the form '# name: value'"),
        ("energy.static_mw: 0.0", "energy.static_mw: lots", r"energy\.static_mw must be a number >= 0\. Got 'lots'"),
        ("# energy.static_mw: 0.0\n", "", r"the header lacks energy\.static_mw"),
        ("# energy.static_mw", "# energy.static_mv: 1\n# energy.static_mw", r"'energy\.static_mv'\. Did you mean"),
    ],
)
def test_malformed_tables_are_refused_with_their_place(path: Path, old: str, new: str, message: str) -> None:
    rewrite(path, old, new)
    with pytest.raises(TableError, match=message):
        read_table(path)


@pytest.mark.parametrize("name", catalog.entries("latency_tables"))
def test_the_shipped_tables_are_sound(name: str) -> None:
    table = read_table(catalog.find("latency_tables", name))
    assert table.header.device == name
    assert table.energy is not None
    assert f"# sha256: {table.sha256}" in catalog.find("latency_tables", name).read_text()  # that studies know it by
    simulated = "(simulated)" in table.header.cpu
    assert simulated == (not name.startswith("epyc_zen5"))
    assert {row.source for row in table.rows} == {"simulated" if simulated else "measured"}


def test_a_missing_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="cannot read"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(TableError, match="the header lacks"):
        read_table(tmp_path / "empty.csv")
