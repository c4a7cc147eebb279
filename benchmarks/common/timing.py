"""Clocks, rates, percentiles, work taken in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

Result = TypeVar("Result")


class Clock:
    """A function that notes how long each of its calls took: ``each``, in seconds, and their sum."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.each = function, list[float]()

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        """Calls the function and notes the time."""
        start = time.perf_counter()
        try:
            return self.function(*arguments, **more)
        finally:
            self.each.append(time.perf_counter() - start)

    @property
    def seconds(self) -> float:
        """Of all calls since the last `reset`."""
        return sum(self.each)

    def reset(self) -> None:
        """Forgets what was noted."""
        self.each.clear()


def timed(call: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds of one call, and what it returned."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def best_rate(work: Callable[[], int], seconds: float) -> float:
    """The best items a second of one call of ``work`` (which returns how many) within about ``seconds``."""
    end, best = time.perf_counter() + seconds, 0.0
    while time.perf_counter() < end:
        start = time.perf_counter()
        best = max(best, work() / (time.perf_counter() - start))
    return best


def percentiles(seconds: Iterable[float], digits: int = 2) -> dict[str, float]:
    """Median, 95th and 99th percentile of ``seconds``, in milliseconds."""
    values = np.percentile([1000 * value for value in seconds], [50, 95, 99])
    return {
        name: round(float(value), digits) for name, value in zip(("p50_ms", "p95_ms", "p99_ms"), values, strict=True)
    }


def in_turns(ways: Mapping[str, Callable[[], Result]], rounds: int) -> dict[str, list[Result]]:
    """What each way returned in each round, after one round to warm up.

    In turns, so that a machine that slows down, or that others use as well, slows all of them.
    """
    results: dict[str, list[Result]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            result = way()
            if number:
                results[name].append(result)
    return results
