"""Progress bars, on a terminal only."""

from __future__ import annotations

import sys
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


_STAGES = {"tokens": "tokens", "walk": "looking", "index": "indexing", "finish": "indexing", "read": "reading text"}


@contextmanager
def progress_bar(*, hidden: bool) -> Iterator[Callable[[Any], None]]:
    """Shows files, rate, time left and skipped files of a run of indexing."""
    if hidden or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[skipped]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking", total=None, rate="", skipped="")

        def show(progress: Any) -> None:
            skipped = f"{progress.skipped} skipped" if progress.skipped else ""
            speed = bar.tasks[0].speed
            rate = f"{speed:.1f} files/s" if speed and progress.stage != "walk" else ""
            bar.update(
                task,
                description=_STAGES[progress.stage],
                completed=progress.done,
                total=progress.total,
                rate=rate,
                skipped=skipped,
            )

        yield show
