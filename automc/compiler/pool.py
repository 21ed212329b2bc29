"""The C by which a library of several threads computes: an interface of three functions, and what stands behind it."""

POOL_HEADER = """\
/* What a library of several threads needs of its system. pool.c does it with POSIX threads; on another system, define
   the three functions yourself and leave pool.c out. */
#ifndef automc_pool_h
#define automc_pool_h
#ifdef __cplusplus
extern "C" {
#endif
typedef struct automc_pool automc_pool;

/* A pool of so many threads, the caller's own among them; NULL where it cannot be had. */
automc_pool *automc_pool_start(int threads);

/* Calls part(job, n) for every n from 0 up to `parts`, which are no more than the threads, in any order and at once;
   comes back when all have. It is never called twice at once with the same pool. */
void automc_pool_run(automc_pool *pool, void (*part)(void *job, int number), void *job, int parts);

/* Ends the threads. */
void automc_pool_stop(automc_pool *pool);
#ifdef __cplusplus
}
#endif
#endif
"""

POOL = """\
/* Threads that wait for work: each looks for it for a while, since layers take microseconds, and then sleeps. */
#define _POSIX_C_SOURCE 200809L
#include "pool.h"
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

enum { LOOKS = 2000 }; /* before a thread sleeps, some ten microseconds */

typedef struct {
  automc_pool *pool;
  pthread_t thread;
  int number;
} worker;

struct automc_pool {
  pthread_mutex_t mutex;
  pthread_cond_t begun;
  void (*part)(void *job, int number);
  void *job;
  int parts, ending;
  unsigned round; /* how many times there has been work; written with the mutex */
  int left;       /* workers that have not finished this round */
  int count;
  worker workers[];
};

static void take_a_breath(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

static unsigned next_round(automc_pool *pool, unsigned known) {
  for (int i = 0; i < LOOKS; i++) {
    const unsigned round = __atomic_load_n(&pool->round, __ATOMIC_ACQUIRE);
    if (round != known) return round;
    take_a_breath();
  }
  pthread_mutex_lock(&pool->mutex);
  while (pool->round == known) pthread_cond_wait(&pool->begun, &pool->mutex);
  const unsigned round = pool->round;
  pthread_mutex_unlock(&pool->mutex);
  return round;
}

static void *work(void *argument) {
  worker *self = argument;
  automc_pool *pool = self->pool;
  for (unsigned round = 0;;) {
    round = next_round(pool, round);
    if (pool->ending) return NULL;
    if (self->number < pool->parts) pool->part(pool->job, self->number);
    __atomic_sub_fetch(&pool->left, 1, __ATOMIC_RELEASE);
  }
}

static void begin(automc_pool *pool) {
  pthread_mutex_lock(&pool->mutex);
  __atomic_store_n(&pool->left, pool->count, __ATOMIC_RELAXED);
  __atomic_store_n(&pool->round, pool->round + 1, __ATOMIC_RELEASE);
  pthread_cond_broadcast(&pool->begun);
  pthread_mutex_unlock(&pool->mutex);
}

automc_pool *automc_pool_start(int threads) {
  automc_pool *pool = calloc(1, sizeof *pool + (size_t)threads * sizeof *pool->workers);
  if (!pool) return NULL;
  pthread_mutex_init(&pool->mutex, NULL);
  pthread_cond_init(&pool->begun, NULL);
  for (int i = 0; i < threads - 1; i++) {
    worker *next = &pool->workers[i];
    next->pool = pool;
    next->number = i + 1;
    if (pthread_create(&next->thread, NULL, work, next) != 0) {
      automc_pool_stop(pool);
      return NULL;
    }
    pool->count++;
  }
  return pool;
}

void automc_pool_run(automc_pool *pool, void (*part)(void *job, int number), void *job, int parts) {
  pool->part = part;
  pool->job = job;
  pool->parts = parts;
  begin(pool);
  part(job, 0);
  for (int i = 0; __atomic_load_n(&pool->left, __ATOMIC_ACQUIRE) > 0; i++) {
    if (i < LOOKS) take_a_breath();
    else sched_yield();
  }
}

void automc_pool_stop(automc_pool *pool) {
  pool->ending = 1;
  begin(pool);
  for (int i = 0; i < pool->count; i++) pthread_join(pool->workers[i].thread, NULL);
  pthread_cond_destroy(&pool->begun);
  pthread_mutex_destroy(&pool->mutex);
  free(pool);
}
"""

POOL_FILES = {"pool.h": POOL_HEADER, "pool.c": POOL}

# For systems without threads: parts are computed one after the other.
SERIAL_POOL = """
typedef struct automc_pool automc_pool;
automc_pool *automc_pool_start(int threads) {
  static int any;
  any = threads;
  return (automc_pool *)(void *)&any;
}
void automc_pool_run(automc_pool *pool, void (*part)(void *job, int number), void *job, int parts) {
  (void)pool;
  for (int i = 0; i < parts; i++) part(job, i);
}
void automc_pool_stop(automc_pool *pool) { (void)pool; }
"""
