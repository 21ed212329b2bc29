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
    def of(cls, shape: tuple[int, ...], dilation: tuple[int, int], groups: int) -> Window:
        """The window of weights of a shape `out x in/groups x kh x kw`."""
        _, channels, rows, columns = shape
        if columns == 1 or (dilation[1] == 1 and groups == 1):
            return cls(rows, 1, columns * channels)
        return cls(rows, columns, channels)


@dataclass(frozen=True)
class Products:
    """Prints the loops that add products to the accumulators `c<pixel>_<vector>`.

    They read the weights at `w`, and the bytes of the window at `at` plus each pixel's offset.
    """

    window: Window
    path: Path
    interval: int  # steps between widenings, at most
    offsets: tuple[int, ...]  # bytes between the tile's first pixel and each of its pixels
    vectors: int
    row_bytes: int  # between rows of the window
    column_bytes: int

    def lines(self) -> list[str]:
        """The loops, with as few widenings as the interval asks for: of the whole window, of a run, or within a run."""
        steps = self.window.steps
        if self.interval >= steps * self.window.runs:
            return [*self._zero(), *self._over_runs(self._over_steps(0, steps, self._step())), *self._widen()]
        if self.interval >= steps:
            return self._over_runs([*self._zero(), *self._over_steps(0, steps, self._step()), *self._widen()])
        block = -(-steps // -(-steps // self.interval))  # blocks of about equal length
        if block == 1:
            return self._over_runs(self._over_steps(0, steps, self._widened_step()))
        whole = steps // block * block
        return self._over_runs(
            [
                f"for (int k0 = 0; k0 < {whole * STEP}; k0 += {block * STEP}) {{",
                *self._zero(),
                *self._over_steps("k0", block, self._step()),
                *self._widen(),
                "}",
                *(self._rest(whole) if whole < steps else []),
            ]
        )

    def _rest(self, first: int) -> list[str]:
        steps = self._over_steps(first * STEP, self.window.steps - first, self._step())
        return ["{", *self._zero(), *steps, *self._widen(), "}"]

    def _over_runs(self, body: list[str]) -> list[str]:
        return [
            f"for (int i = 0; i < {self.window.rows}; i++) for (int j = 0; j < {self.window.columns}; j++) {{",
            f"const uint8_t *from = at + i * {self.row_bytes} + j * {self.column_bytes};",
            *body,
            "}",
        ]

    def _over_steps(self, first: int | str, count: int, step: list[str]) -> list[str]:
        advance = self.vectors * LANES * STEP
        loop = f"for (int k = {first}; k < {first} + {count * STEP}; k += {STEP}, w += {advance}) {{"
        return [loop, *step, "}"]

    def _step(self) -> list[str]:
        return [
            line
            for pixel in range(len(self.offsets))
            for line in (self._load(pixel), *(f"{self._sum(pixel, v)} = {self._dot(pixel, v)};" for v in self._each))
        ]

    def _widened_step(self) -> list[str]:
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

    def _zero(self) -> list[str]:
        name = self.path.name
        return [f"{name}_sum {self._sum(pixel, v)} = {name}_zero();" for pixel, v in self._tile]

    def _widen(self) -> list[str]:
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
