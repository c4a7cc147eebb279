"""What an index lacks → read → compute → commit: written once, for everything that is made of what it holds.

An `Artefact` says what is lacking and what a commit of it is; an `Executor` reads and computes. A commit is one batch
(`mmsearch.store.local.commit`), so ``kill -9`` at any instant loses at most the batch in flight, and the same call goes
on from there.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from mmsearch.core.types import Progress
from mmsearch.pipeline.compute import BatchFunction, Output
from mmsearch.pipeline.executor import Computed, Executor, Result, Round, interrupts_held
from mmsearch.pipeline.reading import ArchiveEnd, Failed, Finished, Kind, Known, Piece, Twin
from mmsearch.store.local.commit import Batch, Committed, ContentKey, commit

COMMIT_SECONDS = 1.0
"""A crash loses at most so much work (and the batches in hand) …"""
COMMIT_SHARE = 0.05
"""… unless commits are so slow on this disk that they would take more than this share of the time."""
Rows = Sequence[tuple[Piece, Output]]


class Artefact(ABC):
    """Something that is made of files or contents: vectors, the reranker cache, the text in pictures.

    Holds what is complete until it is committed. Nothing here is called from two threads.
    """

    commit_rows = 1024
    """So many rows are committed at the latest."""
    functions: Mapping[Kind, BatchFunction]
    """What computes the pieces of each kind that there can be."""

    def __init__(self) -> None:
        self.rows = 0
        """Complete, and not committed yet."""
        self.news: list[Progress] = []
        """What the progress callback has not been told yet."""

    @abstractmethod
    def rounds(self) -> Iterator[Round]:
        """What lacks it, in rounds. When the next one is asked for, all results of the one before are committed."""

    @abstractmethod
    def finish(self, item: Finished, rows: Rows) -> None:
        """All that was computed of an item, in the order of its pieces."""

    @abstractmethod
    def take(self, message: Known | Twin | Failed | ArchiveEnd) -> None:
        """What else became of an item."""

    @abstractmethod
    def batch(self) -> Batch:
        """What can be committed now. It may be called again without `committed` in between, where a commit failed."""

    def commit(self, index: Any, batch: Any) -> Any:
        """Makes a batch true, all of it or nothing; what `committed` is told. ``index``: what ``writing`` opened."""
        return commit(index, batch)

    @abstractmethod
    def committed(self, batch: Batch, done: Committed) -> None:
        """The batch is committed: counts it, and lets go of it."""


def fill(
    artefact: Artefact,
    executor: Executor,
    writing: Callable[[], AbstractContextManager[Any]],
    progress: Callable[[Progress], None] = lambda _: None,
) -> bool:
    """Makes and commits all that is lacking; returns whether it was interrupted (Ctrl-C), with what was complete saved.

    ``writing`` opens the index, or what else `Artefact.commit` writes to, for one commit.
    """
    run = _Run(artefact, executor, writing, progress)
    try:
        for part in artefact.rounds():
            run.run(part)
        run.settle()
    except KeyboardInterrupt:
        run.commit()
        return True
    return False


class _Run:
    """Puts items together from their computed pieces, and commits when it is time."""

    def __init__(
        self, artefact: Artefact, executor: Executor, writing: Callable[[], AbstractContextManager[Any]],
        progress: Callable[[Progress], None],
    ) -> None:  # fmt: skip
        self._artefact = artefact
        self._executor = executor
        self._writing = writing
        self._progress = progress
        self._rows: dict[ContentKey, list[tuple[Piece, Output]]] = {}
        self._finished: dict[ContentKey, Finished] = {}
        self._next_commit = time.monotonic() + COMMIT_SECONDS

    def run(self, part: Round) -> None:
        self._executor.run(part, self._artefact.functions, self._take)
        self._rows.clear()
        self._finished.clear()
        self.settle()

    def settle(self) -> None:
        """Commits and tells all that came of a round."""
        self.commit()
        self._tell()

    def _tell(self) -> None:
        """Last of all, as whoever is told may interrupt the run."""
        news, self._artefact.news = self._artefact.news, []
        for at in news:
            self._progress(at)

    def _take(self, result: Result) -> None:
        if isinstance(result, Computed):
            for row in result.rows:
                self._rows.setdefault(row[0].item, []).append(row)
            for item in {piece.item: None for piece, _ in result.rows}:
                self._finish_if_complete(item)
        elif isinstance(result, Finished):
            self._finished[result.item] = result
            self._finish_if_complete(result.item)
        else:
            if isinstance(result, Failed) and result.item is not None:
                self._rows.pop(result.item, None)
            self._artefact.take(result)
        if self._artefact.rows >= self._artefact.commit_rows or time.monotonic() > self._next_commit:
            self.commit()
        self._tell()

    def _finish_if_complete(self, item: ContentKey) -> None:
        finished = self._finished.get(item)
        if finished is not None and len(self._rows.get(item, ())) == finished.pieces:
            del self._finished[item]
            self._artefact.finish(finished, sorted(self._rows.pop(item, []), key=lambda row: row[0].ordinal))

    def commit(self) -> None:
        """Commits all that is complete."""
        started = time.monotonic()
        with self._executor.seconds.of("commit"):
            batch = self._artefact.batch()
            if batch:
                with self._writing() as index, interrupts_held():
                    self._artefact.committed(batch, self._artefact.commit(index, batch))
                    for content in batch.contents:
                        self._executor.settled(content.key)
        ended = time.monotonic()
        self._next_commit = ended + max(COMMIT_SECONDS, (ended - started) / COMMIT_SHARE)
