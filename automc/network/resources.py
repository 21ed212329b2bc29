"""What a process takes of its machine while it computes with torch: threads, and memory that it keeps."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def take_threads(count: int) -> None:
    """Let torch compute on `count` threads in this process, which from now on keeps the memory that it frees."""
    import torch

    torch.set_num_threads(count)
    keep_memory()


def keep_memory() -> None:
    """Keep freed memory for what is allocated next, instead of giving it back to the system.

    A network's maps for hundreds of images are so large that glibc asks the system for each anew, and the system clears
    every page of it on first use: an activation then costs three times its arithmetic. Other libraries of C than glibc
    are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
