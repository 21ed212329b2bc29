"""Tests compute on one thread: their tensors are tiny, and threads that wait for each other cost far more."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
