"""Progress bars, on a terminal only."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def counting_bar(what: str, *, hidden: bool) -> Iterator[Callable[[int, int], None]]:
    """Shows how many of a number of steps are done."""
    if hidden or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def download_bar() -> Iterator[Callable[[Any], None] | None]:
    """Shows bytes, speed and time left of a download."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("connecting", total=None)
        yield lambda at: bar.update(task, description=at.file, completed=at.done, total=at.total)


_STAGES = {"tokens": "tokens", "walk": "looking", "index": "indexing", "finish": "indexing", "read": "reading text",
           "listen": "listening"}  # fmt: skip


@contextmanager
def progress_bar(*, hidden: bool) -> Iterator[Callable[[Any], None]]:
    """Shows files, rate, time left and skipped files of a run of indexing."""
    if hidden or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking", total=None, text="")
        pace = Pace()

        def show(progress: Any) -> None:
            text = f"{progress.skipped:,} skipped" if progress.skipped else ""
            if progress.stage != "walk":
                text = "  ".join(filter(None, (pace.describe(progress.done, progress.total, time.monotonic()), text)))
            bar.update(
                task,
                description=_STAGES[progress.stage],
                completed=progress.done,
                total=progress.total,
                text=text,
            )

        yield show


class Pace:
    """Files a second and time left, from the last half minute: files come in batches, and the first look at a run
    finds all those done that have not changed.
    """

    WINDOW_S, LEAST_S = 30.0, 1.0

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def describe(self, done: int, total: int | None, now: float) -> str:
        """``12.5 files/s  0:01:20 left``; empty as long as too little is known. ``now`` in seconds."""
        if self._seen and done < self._seen[-1][1]:  # another stage began
            self._seen.clear()
        if not self._seen or done != self._seen[-1][1]:
            self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > self.WINDOW_S:
            self._seen.popleft()
        start, first = self._seen[0]
        if now - start < self.LEAST_S or done <= first:
            return ""
        rate = (done - first) / (now - start)
        text = f"{rate:,.1f} files/s"
        if total is not None:
            minutes, seconds = divmod(round((total - done) / rate), 60)
            text += f"  {minutes // 60}:{minutes % 60:02d}:{seconds:02d} left"
        return text
