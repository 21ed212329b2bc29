"""The source and the header of a library, in the language of its target."""

from __future__ import annotations

from collections.abc import Mapping

from automc.compiler import emit
from automc.compiler.lowering import Lowered
from automc.compiler.opencl import host

_EMITTERS = {"C": (emit.emit_source, emit.emit_header), "OpenCL C": (host.emit_source, host.emit_header)}
STATUS: Mapping[int, str] = {**emit.STATUS, **emit.THREADS_STATUS, **host.STATUS}  # what init can answer


def emit_source(programs: Mapping[str, Lowered]) -> str:
    """The C source of programs by prefix, all for one target; they share the kernels that are equal."""
    (language,) = {lowered.target.language for lowered in programs.values()}
    return _EMITTERS[language][0](programs)


def emit_header(lowered: Lowered, prefix: str) -> str:
    """The C header of one program."""
    return _EMITTERS[lowered.target.language][1](lowered, prefix)
