"""The inner loops of a convolution: all products of a window, for a tile of pixels by vectors of output channels."""

from __future__ import annotations

from dataclasses import dataclass

from automc.compiler.isa import LANES, STEP, Path


@dataclass(frozen=True)
class Window:
    """How a kernel walks over a window: `rows x columns` runs of `run` neighbouring bytes, in steps of `STEP`.

    The columns of the window are one run where they are neighbours in memory.
    """

    rows: int
    columns: int
    run: int

    @property
    def runs(self) -> int:
        return self.rows * self.columns

    @property
    def steps(self) -> int:
        """Steps of one run; the last may reach behind it, where the weights are zero."""
        return -(-self.run // STEP)

    @classmethod
    def of(cls, shape: tuple[int, ...], dilation: tuple[int, int], groups: int, in_blocks: bool = False) -> Window:
        """The window of weights of a shape `out x in/groups x kh x kw`; in blocks, no step reaches over two columns."""
        _, channels, rows, columns = shape
        neighbours = dilation[1] == 1 and groups == 1 and not (in_blocks and channels % STEP)
        if columns == 1 or neighbours:
            return cls(rows, 1, columns * channels)
        return cls(rows, columns, channels)


@dataclass(frozen=True)
class Steps:
    """Prints what one step does: adds products to the partial sums of a tile, or to its accumulators.

    Accumulators are called `c<pixel>_<vector>`. A step reads the weights at `w`, and the bytes at `from + k` plus each
    pixel's offset.
    """

    path: Path
    interval: int  # steps between widenings, at most
    offsets: tuple[int, ...]  # bytes between the tile's first pixel and each of its pixels
    vectors: int

    @property
    def advance(self) -> int:
        """The weights of a step."""
        return self.vectors * LANES * STEP

    def step(self) -> list[str]:
        return [
            line
            for pixel in range(len(self.offsets))
            for line in (self._load(pixel), *(f"{self._sum(pixel, v)} = {self._dot(pixel, v)};" for v in self._each))
        ]

    def widened_step(self) -> list[str]:
        """A step whose sums are widened one by one, so that they need no registers."""
        name = self.path.name
        return [
            line
            for pixel in range(len(self.offsets))
            for line in (
                self._load(pixel),
                *(
                    f"c{pixel}_{v} = {name}_widen(c{pixel}_{v}, {self._dot(pixel, v, f'{name}_zero()')});"
                    for v in self._each
                ),
            )
        ]

    def zero(self) -> list[str]:
        name = self.path.name
        return [f"{name}_sum {self._sum(pixel, v)} = {name}_zero();" for pixel, v in self._tile]

    def widen(self) -> list[str]:
        name = self.path.name
        return [f"c{pixel}_{v} = {name}_widen(c{pixel}_{v}, {self._sum(pixel, v)});" for pixel, v in self._tile]

    def _load(self, pixel: int) -> str:
        return f"const {self.path.name}_act a{pixel} = {self.path.name}_load(from + {self.offsets[pixel]} + k);"

    def _dot(self, pixel: int, vector: int, start: str = "") -> str:
        start = start or self._sum(pixel, vector)
        return f"{self.path.name}_dot({start}, a{pixel}, w + {vector * LANES * STEP})"

    def _sum(self, pixel: int, vector: int) -> str:
        return f"s{pixel}_{vector}"

    @property
    def _each(self) -> range:
        return range(self.vectors)

    @property
    def _tile(self) -> list[tuple[int, int]]:
        return [(pixel, vector) for pixel in range(len(self.offsets)) for vector in self._each]


@dataclass(frozen=True)
class Products(Steps):
    """Prints the loops over all steps of a window, whose first byte lies at `at`."""

    window: Window
    row_bytes: int  # between rows of the window
    column_bytes: int

    def lines(self) -> list[str]:
        """The loops, with as few widenings as the interval asks for: of the whole window, of a run, or within a run."""
        steps = self.window.steps
        if self.interval >= steps * self.window.runs:
            return [*self.zero(), *self._over_runs(self._over_steps(0, steps, self.step())), *self.widen()]
        if self.interval >= steps:
            return self._over_runs([*self.zero(), *self._over_steps(0, steps, self.step()), *self.widen()])
        block = -(-steps // -(-steps // self.interval))  # blocks of about equal length
        if block == 1:
            return self._over_runs(self._over_steps(0, steps, self.widened_step()))
        whole = steps // block * block
        return self._over_runs(
            [
                f"for (int k0 = 0; k0 < {whole * STEP}; k0 += {block * STEP}) {{",
                *self.zero(),
                *self._over_steps("k0", block, self.step()),
                *self.widen(),
                "}",
                *(self._rest(whole) if whole < steps else []),
            ]
        )

    def _rest(self, first: int) -> list[str]:
        steps = self._over_steps(first * STEP, self.window.steps - first, self.step())
        return ["{", *self.zero(), *steps, *self.widen(), "}"]

    def _over_runs(self, body: list[str]) -> list[str]:
        return [
            f"for (int i = 0; i < {self.window.rows}; i++) for (int j = 0; j < {self.window.columns}; j++) {{",
            f"const uint8_t *from = at + i * {self.row_bytes} + j * {self.column_bytes};",
            *body,
            "}",
        ]

    def _over_steps(self, first: int | str, count: int, step: list[str]) -> list[str]:
        loop = f"for (int k = {first}; k < {first} + {count * STEP}; k += {STEP}, w += {self.advance}) {{"
        return [loop, *step, "}"]


@dataclass(frozen=True)
class ListedProducts(Steps):
    """Prints the loop over the `count` steps, `most` at most, whose bytes lie `offsets` behind `at`."""

    most: int

    def lines(self) -> list[str]:
        if self.interval >= self.most:
            return [*self.zero(), *self._over("0", "count", self.step()), *self.widen()]
        if self.interval == 1:
            return self._over("0", "count", self.widened_step())
        return [
            f"for (int first = 0; first < count; first += {self.interval}) {{",
            f"const int last = first + {self.interval} < count ? first + {self.interval} : count;",
            *self.zero(),
            *self._over("first", "last", self.step()),
            *self.widen(),
            "}",
        ]

    def _over(self, first: str, last: str, step: list[str]) -> list[str]:
        return [
            f"for (int i = {first}; i < {last}; i++, w += {self.advance}) {{",
            "const uint8_t *from = at + offsets[i];",
            "const int k = 0;",
            *step,
            "}",
        ]
