"""The `--watch` line: changes on disk, gathered until they are over → one run of indexing of just those places."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsearch.core.errors import EncoderMismatch, IndexBusy, UsageError
from mmsearch.core.types import Progress, Report
from mmsearch.ingest import IngestOptions, ingest
from mmsearch.models.encoders.base import Encoder
from mmsearch.sources import is_remote, located
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
    writes to the index, changes are kept back and tried again. A folder that goes away is waited for: a disk that is
    mounted again, or another one in its place, is watched anew and looked at as a whole. ``encoder`` may be a function
    that gives the one that answers now: then a switch to another model does not end the watch.

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
    if remote := [path for path in map(located, paths) if is_remote(path)]:
        raise UsageError(
            f"{remote[0]} lies in a store, which tells nobody of changes: run `mmsearch index` on it again"
        )
    real = [Path(os.path.realpath(path.expanduser())) for path in paths]
    changes = _changes(real, index.path, stop, limits)
    next(changes)  # from now on nothing is missed, so whatever changes during the first run comes after it
    waiting: set[Path] = set(real)
    first = True
    while not stop.is_set():
        if waiting and (report := _run(index, encoder, real, waiting, options, progress, limits, first)):
            news = (report.indexed, report.updated, report.removed, report.absent, report.back, report.interrupted)
            if first or any(news):
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
    opened = encoder()
    try:
        if first:
            return ingest(index, opened, paths, options, progress)
        places = paths if len(changed) > limits.most_paths else sorted(changed)
        return ingest(index, opened, places, options, progress, changes=True)
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
    own = os.path.realpath(index_path)

    def counts(_: object, path: str) -> bool:
        return path != own and not path.startswith(own + os.sep)

    last = _places(paths)
    replaced: set[Path] = set()
    while not stop.is_set():
        now = _places(paths)
        replaced |= _changed(last, now)
        last = now
        there = [path for path in paths if path.exists()]
        if there:
            replaced = yield from _events(there, counts, stop, options, now, replaced)
        else:
            yield replaced
            replaced = set()
            while not stop.wait(options.quiet_s) and not (replaced := _changed(now, _places(paths))):
                yield set()


def _events(
    paths: Sequence[Path], counts: Callable[[object, str], bool], stop: threading.Event, options: WatchOptions,
    seen: dict[Path, tuple[object, ...]], replaced: set[Path],
) -> Generator[set[Path], None, set[Path]]:  # fmt: skip
    """Changes below folders that are there, for as long as all are the folders ``seen``; first, once they are watched,
    those that were ``replaced``. Returns the ones to look at as a whole: one that was away for a moment may be back as
    the same folder before anybody looks again.
    """
    import watchfiles

    try:
        for found in watchfiles.watch(
            *paths, watch_filter=counts, stop_event=stop, debounce=int(1000 * options.longest_s),
            step=int(1000 * options.quiet_s), rust_timeout=500, yield_on_timeout=True, ignore_permission_denied=True,
        ):  # fmt: skip
            yield replaced | {Path(path) for _, path in found}
            if replaced := _changed(seen, _places(list(seen))):
                return replaced
    except FileNotFoundError:
        return replaced | set(paths)  # a folder went away between two looks
    except (OSError, RuntimeError) as error:
        if changed := _changed(seen, _places(list(seen))):
            return replaced | changed
        raise UsageError(
            f"the folders cannot be watched ({error}): raise the system's limit (fs.inotify.max_user_watches), or set "
            "WATCHFILES_FORCE_POLLING=1"
        ) from error
    return set()


def _places(paths: Sequence[Path]) -> dict[Path, tuple[object, ...]]:
    """What changes when another folder lies at one of the paths than before, or a disk comes or goes below it.

    A watch holds on to folders, not to paths, so it would go blind then.
    """
    mounts = _mounts()
    below = {path: [line for point, line in mounts if path in (point, *point.parents)] for path in paths}
    return {path: (_identity(path), *below[path]) for path in paths}


def _changed(before: dict[Path, tuple[object, ...]], now: dict[Path, tuple[object, ...]]) -> set[Path]:
    return {path for path, place in before.items() if now[path] != place}


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _mounts() -> list[tuple[Path, str]]:
    """Where something is mounted, and what, on Linux; elsewhere the folders themselves must tell."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        number, _, device, _, point, *_ = line.split(" ")
        plain = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)
        found.append((Path(plain), f"{number} {device}"))
    return found
