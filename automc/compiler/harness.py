"""C that the shared library carries besides the network: loops over images and repetitions, and a clock."""

HARNESS = """\
#define _POSIX_C_SOURCE 199309L
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#ifndef CLOCK
#define CLOCK CLOCK_THREAD_CPUTIME_ID
#endif

typedef void input_function(void *arena, const uint8_t *pixels);
typedef void range_function(void *arena, int first, int last);
typedef void output_function(const void *arena, float *logits);

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* images x outputs logits. */
void automc_run(void *arena, input_function *input, range_function *range, output_function *output, int operations,
                const uint8_t *pixels, int64_t images, int64_t image_bytes, float *logits, int64_t outputs) {
  for (int64_t i = 0; i < images; i++) {
    input(arena, pixels + i * image_bytes);
    range(arena, 1, operations);
    output(arena, logits + i * outputs);
  }
}

/* Seconds of each of `repeats` samples; a sample is the mean over `loops` runs of everything for one image. */
void automc_time(void *arena, input_function *input, range_function *range, output_function *output, int operations,
                 const uint8_t *pixels, float *logits, int64_t repeats, int64_t loops, double *samples) {
  for (int64_t i = 0; i < repeats; i++) {
    const double start = seconds();
    for (int64_t j = 0; j < loops; j++) {
      input(arena, pixels);
      range(arena, 1, operations);
      output(arena, logits);
    }
    samples[i] = (seconds() - start) / (double)loops;
  }
}

/* The same of one operation; the first, number 0, is the input. */
void automc_time_operation(void *arena, input_function *input, range_function *range, int operation,
                           const uint8_t *pixels, int64_t repeats, int64_t loops, double *samples) {
  for (int64_t i = 0; i < repeats; i++) {
    const double start = seconds();
    for (int64_t j = 0; j < loops; j++) {
      if (operation == 0) input(arena, pixels);
      else range(arena, operation, operation);
    }
    samples[i] = (seconds() - start) / (double)loops;
  }
}
"""
