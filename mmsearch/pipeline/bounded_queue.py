"""A queue between the readers and the encoder that is bounded in bytes: the look-ahead never costs more memory."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """First in, first out, for any number of threads on both sides.

    Holds at most ``items`` things of at most ``size`` bytes together; one that is larger than that alone is taken
    when nothing else waits, so that nothing is stuck.
    """

    def __init__(self, *, items: int, size: int) -> None:
        self._items, self.size = items, size
        self._waiting: deque[tuple[T, int]] = deque()
        self._held = 0
        self._changed = threading.Condition()
        self._closed = False

    def put(self, thing: T, size: int) -> bool:
        """Waits for room; ``False`` when the queue was closed meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits(size))
            if self._closed:
                return False
            self._waiting.append((thing, size))
            self._held += size
            self._changed.notify_all()
            return True

    def get(self) -> T:
        """Waits for something."""
        with self._changed:
            while not self._waiting:
                self._changed.wait(0.5)  # so that an interrupt comes through
            thing, size = self._waiting.popleft()
            self._held -= size
            self._changed.notify_all()
            return thing

    def close(self) -> None:
        """Nothing can be put in any more; who waits for room is let go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return not self._waiting or (len(self._waiting) < self._items and self._held + size <= self.size)
