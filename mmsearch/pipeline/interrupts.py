"""Ctrl-C at moments that can bear it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Lets the block finish before a Ctrl-C is felt.

    A commit is a transaction and the book-keeping that follows it; an interrupt between both would commit the
    same files a second time. Only the main thread is interrupted by Ctrl-C, so elsewhere nothing is to be done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []

    def hold(number: int, frame: Any) -> None:
        waiting.append(number)

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if waiting:
        raise KeyboardInterrupt
