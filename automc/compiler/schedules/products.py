"""The inner loops of a convolution: all products of a window, for a tile of pixels by vectors of output channels."""

from __future__ import annotations

from dataclasses import dataclass

from automc.compiler.isa import LANES, STEP, Path, Register

START_LANES = 16  # int16 values of where the sums of one vector start
_UNROLLED_STEPS = 6  # in a loop whose body the compiler may copy


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

    Accumulators are called `c<pixel>_<first vector>`. A step reads the weights at `w`, and the bytes at `from + k` plus
    each pixel's offset.
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
            for line in (*self._loads(pixel), *(f"{_sum(pixel, r)} = {self._dot(pixel, r)};" for r in self._registers))
        ]

    def widened_step(self) -> list[str]:
        """A step whose sums are widened one by one, so that they need no registers."""
        return [
            line
            for pixel in range(len(self.offsets))
            for line in (
                *self._loads(pixel),
                *(self._widened(pixel, r, self._dot(pixel, r, f"{self._name(r)}_zero()")) for r in self._registers),
            )
        ]

    def begin(self) -> list[str]:
        """What stands before the first sums of a tile."""
        return ["const int16_t *start = starts;"] if self.path.centred else []

    def zero(self) -> list[str]:
        """Partial sums, empty or from where they start."""
        if not self.path.centred:
            return [f"{self._name(r)}_sum {_sum(pixel, r)} = {self._name(r)}_zero();" for pixel, r in self._tile]
        starts = [
            f"{self._name(r)}_sum {_sum(pixel, r)} = {self._name(r)}_start(start + {r.first * START_LANES});"
            for pixel, r in self._tile
        ]
        return [*starts, f"start += {self.vectors * START_LANES};"]

    def widen(self) -> list[str]:
        return [self._widened(pixel, r, _sum(pixel, r)) for pixel, r in self._tile]

    def _loads(self, pixel: int) -> list[str]:
        names = dict.fromkeys((r.prefix, self._name(r)) for r in self._registers)
        place = f"from + {self.offsets[pixel]} + k"
        return [f"const {name}_act {prefix}a{pixel} = {name}_load({place});" for prefix, name in names]

    def _dot(self, pixel: int, register: Register, start: str = "") -> str:
        start = start or _sum(pixel, register)
        weights = f"w + {register.channel * STEP}"
        return f"{self._name(register)}_dot({start}, {register.prefix}a{pixel}, {weights})"

    def _widened(self, pixel: int, register: Register, sums: str) -> str:
        accumulators = f"c{pixel}_{register.first}"
        return f"{accumulators} = {self._name(register)}_widen({accumulators}, {sums});"

    def _name(self, register: Register) -> str:
        return register.prefix + self.path.name

    @property
    def _registers(self) -> list[Register]:
        return self.path.registers(self.vectors)

    @property
    def _tile(self) -> list[tuple[int, Register]]:
        return [(pixel, register) for pixel in range(len(self.offsets)) for register in self._registers]


def _sum(pixel: int, register: Register) -> str:
    return f"s{pixel}_{register.first}"


def widened_blocks(window: Window, interval: int) -> tuple[int, int, int]:
    """Runs, steps of a run, and steps between widenings: about equal ones, and all runs are one where they may be."""
    steps = window.steps
    if interval >= steps * window.runs:
        return 1, steps * window.runs, steps * window.runs
    return window.runs, steps, -(-steps // -(-steps // interval))


@dataclass(frozen=True)
class Products(Steps):
    """Prints the loops over all steps of a window, whose first byte lies at `at`."""

    window: Window
    row_bytes: int  # between rows of the window
    column_bytes: int

    def lines(self) -> list[str]:
        """The loops, with as few widenings as the interval asks for: of the whole window, of a run, or within a run."""
        return [*self.begin(), *self._loops()]

    def _loops(self) -> list[str]:
        steps = self.window.steps
        runs, _, block = widened_blocks(self.window, self.interval)
        if runs < self.window.runs:
            return [*self.zero(), *self._over_runs(self._over_steps(0, steps, self.step())), *self.widen()]
        if block == steps:
            return self._over_runs([*self.zero(), *self._over_steps(0, steps, self.step()), *self.widen()])
        if block == 1:
            return self._over_runs(self._over_steps(0, steps, self.widened_step()))
        whole = steps // block * block
        return self._over_runs(
            [
                *_rolled(steps),
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
            *_rolled(self.window.steps),
            f"for (int i = 0; i < {self.window.rows}; i++) for (int j = 0; j < {self.window.columns}; j++) {{",
            f"const uint8_t *from = at + i * {self.row_bytes} + j * {self.column_bytes};",
            *body,
            "}",
        ]

    def _over_steps(self, first: int | str, count: int, step: list[str]) -> list[str]:
        loop = f"for (int k = {first}; k < {first} + {count * STEP}; k += {STEP}, w += {self.advance}) {{"
        return [*_rolled(count), loop, *step, "}"]


def _rolled(steps: int) -> list[str]:
    """What stands before a loop with so many steps in it."""
    return ["ROLLED"] if steps > _UNROLLED_STEPS else []


@dataclass(frozen=True)
class ListedProducts(Steps):
    """Prints the loop over the `count` steps, `most` at most, whose bytes lie `offsets` behind `at`."""

    most: int

    def lines(self) -> list[str]:
        if self.interval >= self.most:
            return [*self.begin(), *self.zero(), *self._over("0", "count", self.step()), *self.widen()]
        if self.interval == 1:
            return self._over("0", "count", self.widened_step())
        return [
            *self.begin(),
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
