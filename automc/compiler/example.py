"""What goes with a library so that it is used within minutes: a small program in C, and a CMake file that builds it."""

from __future__ import annotations

from string import Template

from automc.compiler.isa import Target
from automc.compression.program import Program

_MAIN = Template("""\
/* Computes one image: ./example IMAGE, a file of $height x $width x $channels bytes, row by row, the channels of a
   pixel side by side. Prints the network's results, one a line. */
#include <stdint.h>
#include <stdio.h>
#include "model.h"

static uint8_t memory[${prefix}_ARENA_BYTES + ${prefix}_ARENA_ALIGNMENT];
static uint8_t pixels[${prefix}_INPUT_BYTES];
static float results[${prefix}_OUTPUTS];

int main(int count, char **arguments) {
  uint8_t *arena = memory + (${prefix}_ARENA_ALIGNMENT - (uintptr_t)memory % ${prefix}_ARENA_ALIGNMENT);
  FILE *image = count == 2 ? fopen(arguments[1], "rb") : NULL;
  if (!image || fread(pixels, 1, sizeof pixels, image) != sizeof pixels) {
    fprintf(stderr, "give the name of a file of %d bytes\\n", (int)sizeof pixels);
    return 2;
  }
  fclose(image);
  const int status = ${prefix}_init(arena);
  if (status) {
    fprintf(stderr, "the library cannot run here: model.h says what %d means\\n", status);
    return 1;
  }
  ${prefix}_input(arena, pixels);
  ${prefix}_invoke(arena);
  ${prefix}_output(arena, results);
  for (int i = 0; i < ${prefix}_OUTPUTS; i++) printf("%.9g\\n", (double)results[i]);
  return 0;
}
""")

_CMAKE = Template("""\
# cmake -B build && cmake --build build && build/example IMAGE
cmake_minimum_required(VERSION 3.10)
project(example C)

$library
add_executable(example main.c)
target_link_libraries(example model)
""")

_LIBRARIES = {
    "C": """\
# The library was compiled so that its results are exact; link it as it is.
add_library(model STATIC IMPORTED)
set_target_properties(model PROPERTIES
  IMPORTED_LOCATION "${CMAKE_CURRENT_SOURCE_DIR}/libmodel.a"
  INTERFACE_INCLUDE_DIRECTORIES "${CMAKE_CURRENT_SOURCE_DIR}")
""",
    "OpenCL C": """\
# What is exact is compiled on the device; this is only what calls it, for any processor.
find_package(OpenCL REQUIRED)
add_library(model STATIC model.c)
target_include_directories(model PUBLIC "${CMAKE_CURRENT_SOURCE_DIR}")
target_link_libraries(model PUBLIC OpenCL::OpenCL)
""",
}


_POOL = """
# What gives it threads; another pool of the same functions does as well.
find_package(Threads REQUIRED)
add_library(pool STATIC pool.c)
target_link_libraries(pool PUBLIC Threads::Threads)
target_link_libraries(model INTERFACE pool)
"""


def emit_cmake(target: Target, threads: int) -> str:
    """The CMake file that builds the example."""
    return _CMAKE.substitute(library=_LIBRARIES[target.language] + (_POOL if threads > 1 else ""))


def emit_example(program: Program, prefix: str) -> str:
    """The C of a program that computes one image from a file."""
    given = program.input
    return _MAIN.substitute(prefix=prefix, height=given.height, width=given.width, channels=given.channels)
