"""Busy seconds of each stage of a run."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Seconds(defaultdict[str, float]):
    """Stage → seconds. One object for each thread; they are added up at the end."""

    def __init__(self) -> None:
        super().__init__(float)

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Adds the time that the block takes to a stage, also when it raises."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self[stage] += time.perf_counter() - started

    def include(self, other: Mapping[str, float]) -> None:
        """Adds the stages of another object."""
        for stage, seconds in other.items():
            self[stage] += seconds
