"""The least value of a sum of small tables, exactly: variable elimination (Dechter 1999, "Bucket elimination")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Table(NamedTuple):
    """A function of some variables: `values` has an axis for each variable of `scope`, in its order."""

    scope: tuple[int, ...]
    values: NDArray[np.float64]


def elimination_order(scopes: Sequence[tuple[int, ...]], sizes: Sequence[int], largest: int) -> list[int] | None:
    """All variables, each the one of the smallest joined table when its turn comes.

    `sizes` says how many values each variable has. None where a joined table would have more than `largest` entries.
    """
    left = [set(scope) for scope in scopes]
    open_variables, order = set(range(len(sizes))), []

    def joined(variable: int) -> set[int]:
        return set[int]().union({variable}, *(scope for scope in left if variable in scope))

    while open_variables:
        # Every step looks at all that is open, which for the few hundred decisions of a search space is soon done.
        size, variable = min((math.prod(sizes[each] for each in joined(one)), one) for one in open_variables)
        if size > largest:
            return None
        left = [scope for scope in left if variable not in scope] + [joined(variable) - {variable}]
        open_variables.remove(variable)
        order.append(variable)
    return order


def minimise(tables: Sequence[Table], order: Sequence[int]) -> tuple[int, ...]:
    """The values of the variables at which the sum of `tables` is least; the lowest where several are."""
    left = list(tables)
    answers: list[Table] = []  # of each variable in `order`: its best value, given those after it
    for variable in order:
        met = [table for table in left if variable in table.scope]
        scope = (variable, *sorted({one for table in met for one in table.scope} - {variable}))
        joint = sum((_spread(table, scope) for table in met), start=np.zeros((1,) * len(scope)))
        answers.append(Table(scope[1:], joint.argmin(axis=0)))
        left = [table for table in left if variable not in table.scope] + [Table(scope[1:], joint.min(axis=0))]
    chosen: dict[int, int] = {}
    for variable, answer in zip(reversed(order), reversed(answers), strict=True):
        chosen[variable] = int(answer.values[tuple(chosen[one] for one in answer.scope)])
    return tuple(chosen[variable] for variable in range(len(order)))


def _spread(table: Table, scope: tuple[int, ...]) -> NDArray[np.float64]:
    """The table's values with an axis for each variable of `scope`, of length 1 where it does not depend on it."""
    own = [variable for variable in scope if variable in table.scope]
    values = table.values.transpose([table.scope.index(variable) for variable in own])
    lengths = dict(zip(own, values.shape, strict=True))
    return values.reshape([lengths.get(variable, 1) for variable in scope])
