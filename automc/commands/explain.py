"""`automc explain`: what each choice of a winner bought in time, energy and bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from automc.commands.console import say
from automc.commands.show import run_at
from automc.commands.specs import open_problem
from automc.errors import InputError, NameNotFound, RunMismatch

if TYPE_CHECKING:
    from automc.compression.policy import Policy
    from automc.cost.model import CostModel
    from automc.cost.savings import Amount


def explain_command(folder: Path) -> None:
    """Explain the winner of every environment of a run, or the one whose folder is given."""
    from automc.cost.model import CostModel
    from automc.search.identity import read_identity
    from automc.search.result import read_result

    winner = folder if (folder / "result.json").is_file() else None
    run = run_at(folder if winner is None else winner.resolve().parent.parent)
    identity = read_identity(run)
    if "overrides" not in identity:
        raise InputError(
            f"{run} was searched from Python, so no file says how its policies are priced; there, "
            "automc.cost.savings.savings says what each choice bought"
        )
    results = [winner] if winner else sorted(path.parent for path in run.glob("*/winner/result.json"))
    if not results:
        raise NameNotFound(f"{run} has delivered no winner yet; automc run goes on with it")
    for place in results:
        result = read_result(place / "result.json")
        weights = identity["weights"]
        overrides = tuple(identity["overrides"])
        problem = open_problem(result.environment, overrides, weights and Path(weights), may_measure=False)
        if result.hashes["table"] != problem.identity["table"]:
            raise RunMismatch(
                f"{place} was priced by another table of {result.device} than the one that is here now; "
                "its costs cannot be taken apart any more"
            )
        assert isinstance(problem.pricing, CostModel)
        say(f"{result.environment}: {result.goal}")
        for line in explained(problem.pricing, result.policy):
            say(line)


def explained(model: CostModel, policy: Policy) -> list[str]:
    """A table of text: a row a layer, what it costs whole at 8 bits and now, and what each kind of choice saved."""
    from automc.cost.savings import KINDS, Amount, savings

    rows = savings(model, policy)
    measures = ["ms", "mJ", "bytes"] if model.table.energy is not None else ["ms", "bytes"]
    width = max(len(row.layer) for row in rows)

    def cells(amount: Amount) -> str:
        shown = {
            "ms": f"{amount.latency_ms:9.5f}",
            "mJ": f"{amount.energy_mj:9.6f}",
            "bytes": f"{amount.size_bytes:9.0f}",
        }
        return "".join(shown[measure] for measure in measures)

    def total(amounts: list[Amount]) -> Amount:
        return Amount(*(sum(values) for values in zip(*(vars(amount).values() for amount in amounts), strict=True)))

    def line(name: str, columns: list[Amount]) -> str:
        return f"{name:{width}s} " + " |".join(map(cells, columns))

    columns = [[row.dense, row.now, *(row.saved[kind] for kind in KINDS)] for row in rows]
    space = 9 * len(measures)
    titles = ("dense at 8 bits", "now", *(f"saved by {kind}" for kind in KINDS))
    units = "".join(f"{measure:>9s}" for measure in measures)
    return [
        f"{'':{width}s} " + " |".join(f"{title:>{space}s}" for title in titles),
        f"{'layer':{width}s} " + " |".join([units] * len(titles)),
        *(line(row.layer, own) for row, own in zip(rows, columns, strict=True)),
        line("sum", [total(list(column)) for column in zip(*columns, strict=True)]),
    ]
