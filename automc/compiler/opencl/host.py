"""The C that gives a program's kernels and constants to a device: it needs nothing but the headers of OpenCL."""

from __future__ import annotations

from collections.abc import Mapping

from automc.compiler.arena import aligned
from automc.compiler.emit import STATUS as C_STATUS
from automc.compiler.emit import array
from automc.compiler.huffman import EXPAND
from automc.compiler.isa import ALIGNMENT
from automc.compiler.kernel import Coded, Constant, Decoded, Kernel, Own, Place
from automc.compiler.lowering import Lowered
from automc.compiler.opencl.runtime import COMMON, FUNCTIONS, HEADER

STATUS = {
    **{code: reason for code, reason in C_STATUS.items() if code != 1},
    5: "there is no OpenCL device",
    6: "the OpenCL device refuses the kernels or the memory",
}


def emit_header(lowered: Lowered, prefix: str) -> str:
    """The C header of one program."""
    return HEADER.substitute(_sizes(lowered, prefix), constants_bytes=_Constants(lowered, prefix).size_bytes)


def emit_source(programs: Mapping[str, Lowered]) -> str:
    """The C source of programs by prefix; they share the kernels that are equal."""
    (target,) = {lowered.target.name: lowered.target for lowered in programs.values()}.values()
    names: dict[str, str] = {}  # the code of each kernel to its name
    helpers: dict[str, str] = {}
    bodies = []
    for prefix, lowered in programs.items():
        for kernel in lowered.kernels:
            names.setdefault(kernel.code, f"kernel_{len(names)}")
            helpers |= _helpers(kernel)
        bodies.append(_program(lowered, prefix, names))
    texts = [target.vocabulary, *(code.replace(" NAME(", f" {name}(", 1) for code, name in names.items())]
    common = COMMON.substitute(kernels="\n".join(map(_quoted, texts)))
    return "\n".join([common, *helpers.values(), *bodies])


class _Constants:
    """Where in the device's buffer of constants everything lies, and the C that writes it there."""

    def __init__(self, lowered: Lowered, prefix: str) -> None:
        self.offsets: dict[tuple[int, int], int] = {}  # by operation and argument
        self.size_bytes = 0
        self.arrays: list[str] = []
        self.fill: list[str] = []
        for position, kernel in enumerate(lowered.kernels):
            for number, argument in enumerate(kernel.arguments):
                if isinstance(argument, Constant):
                    name = f"{prefix}_{position}_{number}"
                    size = argument.size_bytes if isinstance(argument, Decoded) else argument.array.nbytes
                    self.offsets[position, number] = self.size_bytes
                    self._add(argument, name)
                    self.size_bytes += aligned(size)

    def _add(self, constant: Constant, name: str) -> None:
        self.arrays.append(array(name, constant.stored))
        if not isinstance(constant, Decoded):
            self.fill.append(f"  memcpy(constants + {self.size_bytes}, {name}, {constant.array.nbytes});")
            return
        self.fill.append(f"  {{ int8_t *scratch = (int8_t *)constants + {self.size_bytes};")
        if isinstance(constant.form, Coded):
            sizes = f"{constant.array.size}, {name}, {constant.stored.size}, {constant.form.alphabets}"
            self.fill.append(f"    if (!expand(expanded, {sizes})) return 0;")
        self.fill.append(f"    const uint8_t *stored = {'expanded' if isinstance(constant.form, Coded) else name};")
        for other, values in constant.others.items():
            self.arrays.append(array(f"{name}_{other}", values))
            self.fill.append(f"    const {values.dtype.name}_t *{other} = {name}_{other};")
        self.fill += ["    " + line for line in constant.code.splitlines()] + ["  }"]


def _program(lowered: Lowered, prefix: str, names: Mapping[str, str]) -> str:
    constants = _Constants(lowered, prefix)
    operations, numbers, first = [], [], 0
    for position, kernel in enumerate(lowered.kernels):
        row = []
        for number, argument in enumerate(kernel.arguments):
            if isinstance(argument, Place):
                row.append(str(lowered.address(argument, position)))
            elif isinstance(argument, Constant):
                row.append(str(constants.offsets[position, number]))
            else:
                row.append(argument)
        operations.append(f'  {{"{names[kernel.code]}", {kernel.items}, {first}, {len(row)}}},')
        numbers.append(f"  {', '.join(row)},")
        first += len(row)
    functions = FUNCTIONS.substitute(
        _sizes(lowered, prefix),
        operations="\n".join(operations),
        numbers="\n".join(numbers),
        fill="".join(line + "\n" for line in constants.fill),
        constants_bytes=constants.size_bytes,
    )
    return "\n".join(constants.arrays) + functions


def _helpers(kernel: Kernel) -> dict[str, str]:
    """The C functions that its constants are filled with, by name."""
    helpers: dict[str, str] = {}
    for argument in kernel.arguments:
        if isinstance(argument, Decoded):
            helpers |= argument.helpers
            if argument.expanded_bytes:
                helpers["expand"] = EXPAND
    return helpers


def _sizes(lowered: Lowered, prefix: str) -> dict[str, object]:
    program, last = lowered.program, len(lowered.kernels) - 1
    return {
        "prefix": prefix,
        "macs": program.macs,
        "description": lowered.target.description,
        "reasons": "; ".join(f"{code}, {reason}" for code, reason in STATUS.items() if code),
        "height": program.input.height,
        "width": program.input.width,
        "channels": program.input.channels,
        "input_bytes": program.input.size,
        "outputs": program.outputs,
        "results": lowered.address(Place(program.result.target), last),
        "pixels": lowered.address(Place(Own.SCRATCH), 0),
        "arena_bytes": lowered.caller_bytes,
        "device_bytes": lowered.arena_bytes,
        "state_bytes": lowered.state_bytes,
        "alignment": ALIGNMENT,
        "last": last,
        "count": last + 1,
    }


def _quoted(text: str) -> str:
    """C strings, one a line, since compilers need not take long ones."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join(f'  "{line}\\n",' for line in escaped.splitlines())
