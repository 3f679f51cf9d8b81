"""Several works in one process, measured in turns, so that noise hits all."""

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

K = TypeVar("K")

Work = Callable[[], Awaitable[float]]


async def in_turns(works: Mapping[K, Work], turns: int) -> dict[K, float]:
    """The median of what each work says that it cost; the first turn warms up."""
    said: dict[K, list[float]] = {name: [] for name in works}
    gc.collect()
    gc.disable()
    try:
        for work in works.values():
            await work()
        for _ in range(turns):
            for name, work in works.items():
                said[name].append(await work())
    finally:
        gc.enable()
    return {name: statistics.median(costs) for name, costs in said.items()}


def calls(call: Callable[..., Any], wanted: Sequence[tuple[Any, ...]]) -> float:
    """CPU microseconds of one call."""
    begin = time.process_time_ns()
    for arguments in wanted:
        call(*arguments)
    return (time.process_time_ns() - begin) / 1e3 / len(wanted)
