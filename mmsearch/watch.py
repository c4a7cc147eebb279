"""The `--watch` line: changes on disk, gathered until they are over → one run of indexing of just those places."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsearch.core.errors import EncoderMismatch, IndexBusy, UsageError
from mmsearch.core.types import Progress, Report
from mmsearch.ingest import IngestOptions, ingest
from mmsearch.models.encoders.base import Encoder
from mmsearch.store.local.directory import IndexDirectory


@dataclass(frozen=True)
class WatchOptions:
    """``quiet_s``: a burst of changes is over when none came for so long. ``longest_s``: a burst that does not end is
    taken up after so long all the same. ``most_paths``: when more have changed, everything is looked at.
    """

    quiet_s: float = 1.0
    longest_s: float = 30.0
    most_paths: int = 1000


def watch(
    index: IndexDirectory,
    encoder: Encoder | Callable[[], Encoder],
    paths: Sequence[Path],
    options: IngestOptions,
    done: Callable[[Report], None],
    *,
    stop: threading.Event,
    watch_options: WatchOptions = WatchOptions(),
    progress: Callable[[Progress], None] = lambda _: None,
) -> None:
    """Indexes ``paths`` and then keeps them up to date until ``stop`` is set or an interrupt comes (Ctrl-C).

    ``done`` gets the report of the first run and of every later one that found something. While another process
    writes to the index, changes are kept back and tried again. ``encoder`` may be a function that gives the one that
    answers now: then a switch to another model does not end the watch.

    Raises:
        UsageError: a path does not exist, or the system cannot watch so many folders.
    """
    current = (lambda: encoder) if isinstance(encoder, Encoder) else encoder
    with contextlib.suppress(KeyboardInterrupt):
        _watch(index, current, paths, options, done, stop, watch_options, progress)


def _watch(
    index: IndexDirectory, encoder: Callable[[], Encoder], paths: Sequence[Path], options: IngestOptions,
    done: Callable[[Report], None], stop: threading.Event, limits: WatchOptions, progress: Callable[[Progress], None],
) -> None:  # fmt: skip
    real = [Path(os.path.realpath(path.expanduser())) for path in paths]
    changes = _changes(real, index.path, stop, limits)
    next(changes)  # from now on nothing is missed, so whatever changes during the first run comes after it
    waiting: set[Path] = set(real)
    first = True
    while not stop.is_set():
        if waiting and (report := _run(index, encoder, real, waiting, options, progress, limits, first)):
            if first or report.indexed or report.updated or report.removed or report.interrupted:
                done(report)
            if report.interrupted:
                return
            waiting, first = set(), False
        waiting |= next(changes, set())


def _run(
    index: IndexDirectory, encoder: Callable[[], Encoder], paths: Sequence[Path], changed: set[Path],
    options: IngestOptions, progress: Callable[[Progress], None], limits: WatchOptions, first: bool,
) -> Report | None:  # fmt: skip
    """``None`` when another process writes to the index, or has just switched it to another model."""
    everything = first or len(changed) > limits.most_paths
    places = [path for path in paths if path.exists()] if everything and not first else paths
    opened = encoder()
    try:
        if everything:
            return ingest(index, opened, places, options, progress) if places else Report()
        return ingest(index, opened, sorted(changed), options, progress, changes=True)
    except IndexBusy:
        return None
    except EncoderMismatch:
        if encoder() is opened:
            raise
        return None


def _changes(
    paths: Sequence[Path], index_path: Path, stop: threading.Event, options: WatchOptions
) -> Iterator[set[Path]]:
    """Sets of changed places, each after its burst; an empty set first, and now and then."""
    import watchfiles

    own = os.path.realpath(index_path)

    def counts(_: object, path: str) -> bool:
        return path != own and not path.startswith(own + os.sep)

    try:
        for found in watchfiles.watch(
            *paths, watch_filter=counts, stop_event=stop, debounce=int(1000 * options.longest_s),
            step=int(1000 * options.quiet_s), rust_timeout=500, yield_on_timeout=True, ignore_permission_denied=True,
        ):  # fmt: skip
            yield {Path(path) for _, path in found}
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"the folders cannot be watched ({error}): raise the system's limit (fs.inotify.max_user_watches), or set "
            "WATCHFILES_FORCE_POLLING=1"
        ) from error
