"""Work side by side on a CPU's cores."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

T = TypeVar("T")
_LOOK_S = 0.2  # Windows does not interrupt a wait without an end, which Ctrl-C would have to


def side_by_side(work: Callable[[int], T], lanes: int, threads: int) -> list[T]:
    """[work(0), …, work(lanes - 1)], each in a thread of its own with an equal share of torch's `threads`.

    The threads of one small operation wait for one another, those of two samples hardly: measured 1.1 times as fast on
    two cores. The first error comes out when all lanes have ended.
    """
    if lanes == 1:
        return [work(0)]

    def in_lane(lane: int) -> T:
        with torch.inference_mode():  # holds for one thread only
            return work(lane)

    try:
        with ThreadPoolExecutor(lanes, initializer=torch.set_num_threads, initargs=(max(1, threads // lanes),)) as pool:
            working = [pool.submit(in_lane, lane) for lane in range(lanes)]
            while wait(working, timeout=_LOOK_S).not_done:
                pass
            return [lane.result() for lane in working]
    finally:
        torch.set_num_threads(threads)  # what a lane sets for itself also holds for threads yet to begin
