"""Mixers whose channels are recurrences of their own, on a CPU: channels side by side, blocks of them on threads.

The inner loops run over neighbouring channels of one token, which the compiler turns into vector code; a task is one block
of the channels of one sequence, through all of its tokens.
"""

import math
import sys

from numba import get_num_threads, njit

# Channels a task at least: shorter rows cost more to start than to do.
SHORT_ROW = 64
# Fewer numbers than this are done before a second thread has woken up.
SMALL = 16384


def split(batch: int, channels: int, longest: int = sys.maxsize, shortest: int = SHORT_ROW) -> tuple[int, int]:
    """Tasks and channels a task: rows as long as keeps every thread busy, between a longest and a shortest."""
    blocks = math.ceil(channels / longest)
    while batch * blocks % get_num_threads() and channels // (blocks + 1) >= shortest:
        blocks += 1
    width = math.ceil(channels / blocks)
    return batch * math.ceil(channels / width), width


@njit
def place(task, channels, width):
    """Which sequence a task is about, and which channels of it."""
    blocks = (channels + width - 1) // width
    start = task % blocks * width
    return task // blocks, slice(start, min(start + width, channels))
