"""`Factors`: the costs of a search space's policies as a sum of small tables, each over the few decisions of one layer.

What a layer costs depends on the channels that it reads and writes, its own weights, and the bits that it reads. So
each price is computed once, a policy is a sum of known prices, and the cheapest of all policies can be found exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import product
from operator import itemgetter
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from automc.compression.policy import Policy
from automc.cost.kernels import Part
from automc.cost.model import Cost, CostModel, Price
from automc.environment.elimination import Table, elimination_order, minimise
from automc.environment.space import Choices, Decision, SearchSpace, assembled
from automc.schema import CostMetric

COSTS: tuple[CostMetric, ...] = get_args(CostMetric)

_LARGEST = 1 << 20  # entries of one table
_SMALL = 1 << 16  # entries of a table whose prices are found by their place
_WHOLE = Policy()


class Factors:
    """The costs of one index for each decision of `space`, from the prices of `model`."""

    def __init__(self, space: SearchSpace, model: CostModel) -> None:
        self._space, self._model = space, model
        self._factors = [_Factor(part, space, model) for part in model.parts]
        self._small = [number for number, factor in enumerate(self._factors) if factor.size <= _SMALL]
        sizes = [self._factors[number].size for number in self._small]
        self._begins = np.cumsum([0, *sizes])[:-1]  # where each small table begins in `_prices`
        self._strides = np.zeros((len(space.decisions), len(sizes)))
        for number, strides in zip(self._small, self._strides.T, strict=True):
            strides[[*self._factors[number].positions]] = self._factors[number].strides
        self._prices = np.full((sum(sizes), len(COSTS)), np.nan)  # NaN until somebody asks

    def cost(self, choices: Choices) -> Cost:
        """What the policy of `choices` costs: to the last bit what the model says."""
        return self._model.total([factor.price(choices) for factor in self._factors])

    def costs(self, choices: NDArray[np.int64]) -> NDArray[np.float64]:
        """What many policies cost: `n x decisions` indices to `n x len(COSTS)` numbers, in the order of `COSTS`.

        `energy_mj` is 0 where the model knows none.
        """
        # In float64, which BLAS multiplies fast: every place is a whole number far below 2**53.
        places = (choices.astype(np.float64) @ self._strides).astype(np.int64) + self._begins
        self._learn(choices, places)
        known = dict(zip(self._small, places.T, strict=True))
        total = np.tile(_vectors([self._model.call]), (len(choices), 1))
        for number, factor in enumerate(self._factors):  # one after the other, as the model sums
            total += self._prices[known[number]] if number in known else factor.prices(choices)
        return total

    def _learn(self, choices: NDArray[np.int64], places: NDArray[np.int64]) -> None:
        """Fill in those of `n x small tables` places whose prices nobody has asked for yet."""
        rows, columns = np.nonzero(np.isnan(self._prices[places, 0]))
        unknown, first = np.unique(places[rows, columns], return_index=True)
        for place, row, column in zip(unknown, rows[first], columns[first], strict=True):
            price = self._factors[self._small[column]].price(tuple(choices[row].tolist()))
            self._prices[place] = _vectors([price])[0]

    def cheapest(self, weights: Sequence[float]) -> Choices | None:
        """The choices of the least sum of `COSTS` times `weights`.

        None where the tables on the way would be too large, as where many groups meet in one layer.
        """
        if self._order is None:
            return None
        return minimise([Table(each.positions, each.table @ np.array(weights)) for each in self._factors], self._order)

    @cached_property
    def _order(self) -> list[int] | None:
        sizes = [len(decision.choices) for decision in self._space.decisions]
        return elimination_order([factor.positions for factor in self._factors], sizes, _LARGEST)


class _Factor:
    """The prices of one part of the network; `positions` are those of the decisions that matter to it."""

    def __init__(self, part: Part, space: SearchSpace, model: CostModel) -> None:
        self._part, self._model = part, model
        self.positions = tuple(index for index, asked in enumerate(space.decisions) if _concerns(asked, part))
        self._asked = [space.decisions[position] for position in self.positions]
        self._forced = [(decision, decision.choices[0]) for decision in space.forced if _concerns(decision, part)]
        self._sizes = [len(asked.choices) for asked in self._asked]
        self.size = math.prod(self._sizes)
        self.strides = [math.prod(self._sizes[index + 1 :]) for index in range(len(self._sizes))]
        self._own = _picker(self.positions)
        self._known: dict[Choices, Price] = {}

    def price(self, choices: Choices) -> Price:
        """What the part costs under the choices of all decisions."""
        own = self._own(choices)
        known = self._known.get(own)
        return self._learn(own) if known is None else known

    def prices(self, choices: NDArray[np.int64]) -> NDArray[np.float64]:
        """`n x len(COSTS)`, of `n x decisions` choices; each different choice of this part's own is looked up once."""
        own = choices[:, self.positions]
        code, values = np.zeros(len(own), np.int64), 1
        for column, size in zip(own.T, self._sizes, strict=True):
            if values * size >= 1 << 62:
                code = np.unique(code, return_inverse=True)[1]
                values = len(own)
            code, values = code * size + column, values * size
        _, first, which = np.unique(code, return_index=True, return_inverse=True)
        return self._vectors(map(tuple, own[first].tolist()))[which]

    @cached_property
    def table(self) -> NDArray[np.float64]:
        """All prices: an axis for each of `positions`, and `len(COSTS)`."""
        return self._vectors(product(*map(range, self._sizes))).reshape(*self._sizes, len(COSTS))

    def _vectors(self, rows: Iterable[Choices]) -> NDArray[np.float64]:
        return _vectors(self._known.get(own) or self._learn(own) for own in rows)

    def _learn(self, own: Choices) -> Price:
        values = [(asked, asked.choices[index]) for asked, index in zip(self._asked, own, strict=True)]
        price = self._known[own] = self._model.price(self._part, assembled([*values, *self._forced], _WHOLE))
        return price


def _concerns(decision: Decision, part: Part) -> bool:
    match decision.kind:
        case "keep_ratio":
            return decision.name in part.groups
        case "weights":
            return decision.name == part.layer
        case "activation_bits":
            return decision.name == part.tensor


def _picker(positions: Sequence[int]) -> Callable[[Choices], Choices]:
    """From the choices of all decisions to those at `positions`."""
    if len(positions) > 1:
        return itemgetter(*positions)
    return lambda choices: tuple(choices[position] for position in positions)


def _vectors(prices: Iterable[Price]) -> NDArray[np.float64]:
    """`n x len(COSTS)`."""
    return np.array([[getattr(price, metric) for metric in COSTS] for price in prices])
