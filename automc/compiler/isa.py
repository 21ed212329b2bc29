"""What a schedule may assume of an instruction set: a vocabulary of C functions, the same names on every target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

LANES = 8  # output channels of one vector
STEP = 4  # neighbouring values of a window that one instruction multiplies and adds
ALIGNMENT = 64  # bytes; of the arena and of every tensor and scratch in it
OVERREAD = 64  # bytes behind the arena's last tensor that a kernel may read (never write)


@dataclass(frozen=True)
class Register:
    """One vector of lanes, or two neighbouring ones, where a target's registers hold so many."""

    first: int  # vector of its panel
    vectors: int

    @property
    def lanes(self) -> int:
        return self.vectors * LANES

    @property
    def channel(self) -> int:
        """Of its panel, the first."""
        return self.first * LANES

    @property
    def prefix(self) -> str:
        """What the names of its C types and functions begin with."""
        return "twin_" if self.vectors == 2 else ""


@dataclass(frozen=True)
class Path:
    """One way of multiplying and adding `STEP` stored values by `LANES x STEP` weights, exact up to a bound.

    Products are summed in partial sums, which are widened into the int32 accumulators before they can overflow. The
    target's C text defines for it

        NAME_sum, NAME_act                             the types of partial sums, and of STEP values for all lanes
        NAME_zero()                                    empty partial sums
        NAME_load(const uint8_t *p)                    p[0..STEP)
        NAME_dot(sum, act, const WEIGHT *w)            adds to every lane the sum over k of act[k] * weight[lane][k]
        NAME_dot_taps(sum, p0, p1, p2, p3, w)          the same with pk[lane] for act[k]: lanes are channels (depthwise)
        NAME_widen(acc, sum)                           adds the partial sums to the accumulators

    and, where its sums can start elsewhere than at zero,

        NAME_set_start(int16_t *p, sum)                puts down the negative of a sum
        NAME_start(const int16_t *p)                   the sum that begins there

    and, where it has quads, NAME_dot_taps4(sums, p0, p1, p2, p3, w), which does the same to four registers of sums. A
    quad's lanes are in an order of their own: register r has the channels 4r to 4r + 3 of every 16.
    """

    name: str
    weight_type: str  # int8_t or int16_t: what the kernel multiplies by
    lanes_together: bool  # whether weight[lane][k] is w[k * LANES + lane], or else w[lane * STEP + k]
    values_per_sum: int  # how many of the STEP products go into one partial sum
    largest_sum: int  # the largest magnitude that a partial sum holds
    pixels: int  # of a tile: what the registers hold
    vectors: int  # of a tile: LANES output channels each
    largest_value: int = 255  # of the stored values that the instruction takes
    offset: int = 0  # what is subtracted from stored values, by NAME_load and NAME_dot_taps; the biases make up for it
    starts: bool = False  # whether instead partial sums can start at -offset times the weights, where an offset helps
    quads: tuple[int, ...] = ()  # vectors of LANES channels whose taps four registers take at once, the most first
    twins: bool = False  # whether all functions exist a second time, `twin_...`, for 2 * LANES neighbouring channels
    even_first: bool = False  # whether instead weight[lane][k] is w[k % 2 * 2 * LANES + 2 * lane + k / 2]

    @property
    def order(self) -> str:
        """What ends the names of C functions that write weights in the order of this path."""
        return "_together" if self.lanes_together else "_even_first" if self.even_first else ""

    def place(self, k: str) -> str:
        """C text of where the weight for the value k, C text, of the row `lane` lies in its step of a panel."""
        if self.even_first:
            return f"{k} % 2 * {2 * LANES} + 2 * lane + {k} % {STEP} / 2"
        return f"{k} % {STEP} * {LANES} + lane" if self.lanes_together else f"lane * {STEP} + {k} % {STEP}"

    @property
    def centred(self) -> bool:
        """Whether partial sums start at `-offset` times the weights."""
        return self.starts and self.offset > 0

    @property
    def weight_bytes(self) -> int:
        return 2 if self.weight_type == "int16_t" else 1

    def tile_pixels(self, vectors: int, interval: int) -> int:
        """Of a tile of so many vectors: more than `pixels` where a panel is narrow, or where no sums stay in registers.

        With an interval of one step, each product is widened at once.
        """
        pixels = self.pixels * self.vectors // min(vectors, self.vectors)
        return pixels * 3 // 2 if interval == 1 else pixels

    def registers(self, vectors: int) -> list[Register]:
        """So many vectors in as few registers as hold them."""
        width = 2 if self.twins else 1
        return [Register(first, min(width, vectors - first)) for first in range(0, vectors, width)]


@dataclass(frozen=True)
class Machine:
    """A processor that an emulator stands in for: what runs here the code for processors that are not here."""

    emulator: str  # `unicorn`, `pocl`, or a program of qemu-user by its name
    model: str  # of the processor, as the emulator spells it

    def __str__(self) -> str:
        return f"{self.emulator} {self.model}"


@dataclass(frozen=True)
class Target:
    """An instruction set: its C vocabulary, how to compile for it, and how the library recognises it when it runs.

    `vocabulary` is C text that defines, besides the functions of each path,

        acc_t, value_t                                 LANES int32 accumulators, LANES binary32 values
        acc_load(const int32_t *p), acc_add(a, b)
        acc_bytes(const uint8_t *p, int zero)          p[lane] - zero
        value_load(const float *p), value_splat(float)
        value_scale(acc, value)                        binary32(acc) * value, each rounded once
        value_add(a, b)
        store_bytes(p, count, value, low, high, zero)  the first count lanes of rint(clamp(value, low - zero, high -
                                                       zero)) + zero
        store_values(float *p, count, value)
        cpu_is_suitable()                              whether this processor and its system run the code

    and, where `bits` is a path, for binary layers that path's functions over words of 32 bits in the place of STEP
    values, so that NAME_dot takes away from every lane how many bits of act and weight[lane] differ, and

        pack_bits(const uint8_t *p)                    32 values of 0 or 1 as the bits of a uint32_t, the lowest first

    and, where it defines the macro LOOKS_UP,

        look_up(uint8_t *bytes, int count, const int8_t *table, int bits)
                                                       each byte, below 2^bits, becomes table[byte]; count: 8 times any

    and, where a path has quads, acc_load4(accs, p) and value_load4(values, p), which load four registers in the quads'
    order, and store_bytes4(p, values, low, high, zero).

    Loads may read LANES values whatever the count is; stores write exactly `count`. Where a path has twins, the types,
    and the functions of the first block, exist for them, too: `twin_acc_t`, `twin_acc_load`.
    """

    name: str
    description: str
    vocabulary: str
    paths: tuple[Path, ...]  # the fastest first; a layer takes the first whose bound holds
    cpu_flags: tuple[str, ...]  # as /proc/cpuinfo spells them
    flags: Mapping[str, tuple[str, ...]]  # of each compiler, by name
    triple: str | None = None  # processor and system that zig compiles for; None: this machine's
    loadable: bool = True  # whether there are systems that load shared libraries
    machines: tuple[Machine, ...] = ()  # that stand in for the processor, the first one preferred
    bits: Path | None = None  # None: portable C does it
    skipped_density: float = 0.0  # up to which share of non-zeros single zeros are skipped, instead of multiplied by
    # What the kernels are written in. OpenCL's are of another kind, and share of `vocabulary` only the idea.
    language: Literal["C", "OpenCL C"] = "C"

    @property
    def architecture(self) -> str | None:
        """The family of processors; None where any will do."""
        return self.triple.partition("-")[0] if self.triple else None
