"""The C of a library in OpenCL, but for what differs from program to program, and its header."""

from string import Template

COMMON = Template("""\
#define CL_TARGET_OPENCL_VERSION 120
#ifdef __APPLE__
#include <OpenCL/cl.h>
#else
#include <CL/cl.h>
#endif
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ALIGNED
#define ROLLED

static const char *kernels_text[] = {
$kernels
};

typedef struct { const char *kernel; int items, first, count; } operation_t; /* numbers[first..first+count) */
typedef int fill_function(uint8_t *constants, uint8_t *expanded);
typedef struct {
  cl_context context;
  cl_command_queue queue;
  cl_program program;
  cl_mem arena, constants;
  cl_int error; /* the first one since init */
  cl_kernel kernels[]; /* one an operation, which knows its numbers */
} state_t;

static void note(state_t *s, cl_int error) { if (s->error == CL_SUCCESS) s->error = error; }

static cl_kernel kernel_of(state_t *s, const operation_t *operation, const cl_int *numbers) {
  cl_int error;
  cl_kernel kernel = clCreateKernel(s->program, operation->kernel, &error);
  note(s, error);
  if (error != CL_SUCCESS) return NULL;
  const cl_int items = operation->items;
  note(s, clSetKernelArg(kernel, 0, sizeof s->arena, &s->arena));
  note(s, clSetKernelArg(kernel, 1, sizeof s->constants, &s->constants));
  note(s, clSetKernelArg(kernel, 2, sizeof items, &items));
  for (int i = 0; i < operation->count; i++)
    note(s, clSetKernelArg(kernel, (cl_uint)(3 + i), sizeof *numbers, numbers + operation->first + i));
  return kernel;
}

static void enqueue(state_t *s, cl_kernel kernel, int items) {
  const size_t local = 64, global = ((size_t)items + local - 1) / local * local;
  if (s->error == CL_SUCCESS)
    note(s, clEnqueueNDRangeKernel(s->queue, kernel, 1, NULL, &global, &local, 0, NULL, NULL));
}

static void release(state_t *s, int operations) {
  for (int i = 0; i < operations; i++) if (s->kernels[i]) clReleaseKernel(s->kernels[i]);
  if (s->constants) clReleaseMemObject(s->constants);
  if (s->arena) clReleaseMemObject(s->arena);
  if (s->program) clReleaseProgram(s->program);
  if (s->queue) clReleaseCommandQueue(s->queue);
  memset(s, 0, sizeof *s + (size_t)operations * sizeof *s->kernels);
}

/* Rounds to nearest even, and does not fuse a product with a sum: what the results depend on. */
static int arithmetic_is_exact(state_t *s, cl_device_id device) {
  /* 4097, -(4097 * 4097 rounded), 1, three halves of the last place behind 1; then what must come out. */
  static const uint32_t given[] = {0x45800800, 4097, 0xCB801000, 0x3F800000, 0x34400000};
  static const uint32_t meant[] = {0, 0x3F800002, 0x4B800800};
  static const operation_t operation = {"arithmetic", 1, 0, 5};
  uint32_t found[3] = {0};
  cl_device_fp_config config = 0;
  if (clGetDeviceInfo(device, CL_DEVICE_SINGLE_FP_CONFIG, sizeof config, &config, NULL) != CL_SUCCESS) return 0;
  if (!(config & CL_FP_ROUND_TO_NEAREST)) return 0;
  cl_kernel kernel = kernel_of(s, &operation, (const cl_int *)given);
  enqueue(s, kernel, 1);
  if (s->error == CL_SUCCESS)
    note(s, clEnqueueReadBuffer(s->queue, s->arena, CL_TRUE, 0, sizeof found, found, 0, NULL, NULL));
  if (kernel) clReleaseKernel(kernel);
  return memcmp(found, meant, sizeof found) == 0;
}

static cl_mem buffer(state_t *s, cl_mem_flags flags, size_t bytes) {
  cl_int error;
  cl_mem memory = clCreateBuffer(s->context, flags, bytes, NULL, &error);
  note(s, error);
  return error == CL_SUCCESS ? memory : NULL;
}

/* Weights are decoded straight into the memory of the device. */
static int constants_are_filled(state_t *s, size_t bytes, fill_function *fill, uint8_t *expanded) {
  cl_int error;
  uint8_t *to = clEnqueueMapBuffer(s->queue, s->constants, CL_TRUE, CL_MAP_WRITE, 0, bytes, 0, NULL, NULL, &error);
  note(s, error);
  if (error != CL_SUCCESS) return 1;
  const int filled = fill(to, expanded);
  note(s, clEnqueueUnmapMemObject(s->queue, s->constants, to, 0, NULL, NULL));
  return filled;
}

static int prepared(state_t *s, const operation_t *operations, const cl_int *numbers, int count, size_t arena_bytes,
                    size_t constants_bytes, fill_function *fill, uint8_t *expanded) {
  cl_device_id device = NULL;
  cl_int error;
  note(s, clGetCommandQueueInfo(s->queue, CL_QUEUE_CONTEXT, sizeof s->context, &s->context, NULL));
  note(s, clGetCommandQueueInfo(s->queue, CL_QUEUE_DEVICE, sizeof device, &device, NULL));
  if (s->error != CL_SUCCESS) return 5;
  s->program = clCreateProgramWithSource(s->context, sizeof kernels_text / sizeof *kernels_text, kernels_text, NULL,
                                         &error);
  note(s, error);
  if (s->error != CL_SUCCESS) return 6;
  note(s, clBuildProgram(s->program, 1, &device, "-cl-std=CL1.2", NULL, NULL));
  s->arena = buffer(s, CL_MEM_READ_WRITE, arena_bytes);
  s->constants = buffer(s, CL_MEM_READ_ONLY | CL_MEM_ALLOC_HOST_PTR, constants_bytes);
  if (s->error != CL_SUCCESS) return 6;
  if (!constants_are_filled(s, constants_bytes, fill, expanded)) return 4;
  const int exact = arithmetic_is_exact(s, device);
  for (int i = 0; i < count && s->error == CL_SUCCESS; i++) s->kernels[i] = kernel_of(s, operations + i, numbers);
  return s->error != CL_SUCCESS ? 6 : exact ? 0 : 2;
}

/* A queue of the first graphics processor or, where there is none, of the first device. */
static cl_command_queue first_queue(void) {
  static const cl_device_type types[] = {CL_DEVICE_TYPE_GPU, CL_DEVICE_TYPE_ALL};
  cl_platform_id platforms[16];
  cl_uint count = 0;
  if (clGetPlatformIDs(16, platforms, &count) != CL_SUCCESS) return NULL;
  for (int t = 0; t < 2; t++) for (cl_uint i = 0; i < count && i < 16; i++) {
    cl_device_id device;
    cl_int error;
    if (clGetDeviceIDs(platforms[i], types[t], 1, &device, NULL) != CL_SUCCESS) continue;
    cl_context context = clCreateContext(NULL, 1, &device, NULL, NULL, &error);
    if (error != CL_SUCCESS) continue;
    cl_command_queue queue = clCreateCommandQueue(context, device, 0, &error);
    clReleaseContext(context); /* the queue keeps it */
    if (error == CL_SUCCESS) return queue;
  }
  return NULL;
}
""")

FUNCTIONS = Template("""
static const operation_t ${prefix}_operations[] = {
$operations
};
static const cl_int ${prefix}_numbers[] = {
$numbers
};

static int ${prefix}_fill(uint8_t *constants, uint8_t *expanded) {
  (void)expanded;
$fill  return 1;
}

typedef char ${prefix}_state_fits[
  sizeof(state_t) + $count * sizeof(cl_kernel) <= $state_bytes ? 1 : -1];

int ${prefix}_init_on(void *arena, void *queue) {
  state_t *s = arena;
  if ((uintptr_t)arena % $alignment != 0) return 3;
  memset(arena, 0, $state_bytes);
  if (!queue || clRetainCommandQueue(queue) != CL_SUCCESS) return 5;
  s->queue = queue;
  const int status = prepared(s, ${prefix}_operations, ${prefix}_numbers, $count, $device_bytes, $constants_bytes,
                              ${prefix}_fill, (uint8_t *)arena + $state_bytes);
  if (status) release(s, $count);
  return status;
}

int ${prefix}_init(void *arena) {
  cl_command_queue queue = first_queue();
  const int status = ${prefix}_init_on(arena, queue);
  if (queue) clReleaseCommandQueue(queue);
  return status;
}

void ${prefix}_release(void *arena) { release(arena, $count); }

void ${prefix}_input(void *arena, const uint8_t *pixels) {
  state_t *s = arena;
  note(s, clEnqueueWriteBuffer(s->queue, s->arena, CL_TRUE, $pixels, $input_bytes, pixels, 0, NULL, NULL));
  enqueue(s, s->kernels[0], ${prefix}_operations[0].items);
}

void ${prefix}_invoke_range(void *arena, int first, int last) {
  state_t *s = arena;
  for (int i = first; i <= last; i++) enqueue(s, s->kernels[i], ${prefix}_operations[i].items);
  note(s, clFlush(s->queue));
}

void ${prefix}_invoke(void *arena) { ${prefix}_invoke_range(arena, 1, $count - 1); }

void ${prefix}_output(const void *arena, float *results) {
  const state_t *s = arena;
  cl_int error = s->error;
  if (error == CL_SUCCESS)
    error = clEnqueueReadBuffer(s->queue, s->arena, CL_TRUE, $results, $outputs * sizeof *results, results, 0, NULL,
                                NULL);
  if (error != CL_SUCCESS) memset(results, 0xFF, $outputs * sizeof *results);
}
""")

HEADER = Template("""\
/* A network of $macs multiply-accumulates for $description, compiled by automc.

   1. ${prefix}_init(arena) answers 0, or why the library cannot run here: $reasons.
      It takes the first graphics processor or, where there is none, the first device of OpenCL.
      ${prefix}_init_on(arena, queue) takes a cl_command_queue of yours, which works in order.
   2. ${prefix}_input(arena, pixels) takes one image, $height x $width x $channels uint8.
   3. ${prefix}_invoke(arena) enqueues all kernels, and does not wait.
   4. ${prefix}_output(arena, results) waits, and gives $outputs float32 numbers: logits, or a map pixel by pixel like
      the image. They are not-a-number where OpenCL has failed since init.
   5. ${prefix}_release(arena) gives back what init took.

   The arena is the caller's: $arena_bytes bytes aligned to $alignment, the state of one network, so that each arena is
   independent of the others. The device gives $device_bytes bytes for tensors and $constants_bytes for weights. invoke
   uses up the input: give the image again before the next one. */
#ifndef ${prefix}_h
#define ${prefix}_h
#include <stdint.h>

#define ${prefix}_ARENA_BYTES $arena_bytes
#define ${prefix}_ARENA_ALIGNMENT $alignment
#define ${prefix}_DEVICE_BYTES ($device_bytes + $constants_bytes)
#define ${prefix}_INPUT_BYTES ($height * $width * $channels)
#define ${prefix}_OUTPUTS $outputs
#define ${prefix}_LAST_OPERATION $last

#ifdef __cplusplus
extern "C" {
#endif
int ${prefix}_init(void *arena);
int ${prefix}_init_on(void *arena, void *queue);
void ${prefix}_input(void *arena, const uint8_t *pixels);
void ${prefix}_invoke(void *arena);
void ${prefix}_output(const void *arena, float *results);
void ${prefix}_release(void *arena);

/* The operations from first to last, counted from 1. */
void ${prefix}_invoke_range(void *arena, int first, int last);
#ifdef __cplusplus
}
#endif
#endif
""")
