"""What all addresses share: the open index, what may be done with it, and what is kept between requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.core.errors import MediaError, UsageError
from mmsearch.core.system import usable_cores
from mmsearch.server.access import is_in_place

if TYPE_CHECKING:
    from mmsearch.api import Index
    from mmsearch.core.types import Modality
    from mmsearch.models.speech import SpeechRecogniser
    from mmsearch.query.duplicates import Duplicates

COMPARISONS = 4
"""So many lists of duplicates are kept: of the last filters that were asked for."""
UPLOADS = 2
"""So many pictures are taken in and looked at at once, whoever sends them."""


class Comparison:
    """Looks for duplicates in a thread of its own, one at a time (``turn``); ``version``: of what the index lists."""

    def __init__(self, index: Index, where: str, near: float | None, version: Hashable, turn: threading.Lock) -> None:
        self.version = version
        self.share = 0.0
        """How much of it is done."""
        self._turn, self._is_unwanted = turn, False
        self._groups: Future[list[Duplicates]] = Future()
        found = index.duplicates(where, near=near, progress=self._seen)
        threading.Thread(target=self._run, args=(found,), name="duplicates", daemon=True).start()

    def groups(self, wait_s: float) -> list[Duplicates] | None:
        """All of them; ``None`` where they are not known in time, or nobody looks for them any more."""
        wait([self._groups], wait_s)
        return None if self._is_unwanted or not self._groups.done() else self._groups.result()

    def holds(self, version: Hashable) -> bool:
        """Whether its groups are those of a version: they are known, or will be."""
        failed = self._groups.done() and self._groups.exception() is not None
        return self.version == version and not failed

    def stop(self) -> None:
        """Nobody waits for its groups any more."""
        self._is_unwanted = True

    def _run(self, found: Iterator[Duplicates]) -> None:
        try:
            with self._turn:
                self._groups.set_result(list(found))
        except Exception as error:
            self._groups.set_exception(error)

    def _seen(self, done: int, total: int) -> None:
        if self._is_unwanted:
            raise _UnwantedError
        self.share = done / total


class _UnwantedError(Exception):
    """Ends a comparison."""


class Served:
    """One open index. ``allow_changes``: whether documents may be taken out of it."""

    def __init__(self, index: Index, *, allow_changes: bool = False) -> None:
        self.index, self.allow_changes = index, allow_changes
        self.uploads = asyncio.Semaphore(UPLOADS)
        self.searches = asyncio.Semaphore(usable_cores() + 1)
        """More at once only take the processor from each other, and all of them come later."""
        self._recogniser: SpeechRecogniser | None = None
        self._listening, self._comparing, self._changing = threading.Lock(), threading.Lock(), threading.Lock()
        self._comparisons: dict[tuple[str, float | None], Comparison] = {}
        self.turn = threading.Lock()
        """Whoever compares all documents has it."""

    def indexed(self, path: str) -> tuple[str, Modality]:
        """A path and its modality; nothing else than what the index holds is read from the disk.

        Raises:
            UsageError: the index does not hold it, or it leads to another file now.
        """
        document = self.index.document_at(path) if path and "\0" not in path else None
        if document is None:
            raise UsageError(f"{path or 'an empty path'} is not in the index")
        if not is_in_place(document):
            raise UsageError(f"{path} leads to another file than the one that was indexed: index it again")
        return path, document.modality

    def duplicates(self, where: str, near: float | None) -> Comparison:
        """What looks for them; kept while the index does not change, since a page asks for groups in parts."""
        with self._comparing:
            version, key = self.index.browse.version, (where, near)
            known = self._comparisons.pop(key, None)
            if known is None or not known.holds(version):
                if known is not None:
                    known.stop()
                known = Comparison(self.index, where, near, version, self.turn)
            self._comparisons[key] = known
            if len(self._comparisons) > COMPARISONS:
                self._comparisons.pop(next(iter(self._comparisons))).stop()
            return known

    def remove(self, paths: list[str]) -> int:
        """Takes documents out of the index; returns how many."""
        with self._changing:
            for path in paths:
                if self.index.document_at(path) is None:
                    raise UsageError(f"{path} is not in the index: nothing was removed")
            return self.index.remove([Path(path) for path in paths])

    def understood(self, recording: bytes) -> str:
        """The words that are spoken in a recording as browsers make it."""
        from mmsearch.media.sound.containers import sound_of
        from mmsearch.models.speech import open_recogniser
        from mmsearch.pipeline.speech import question_of

        with self._listening:  # one at a time: a recogniser is no thread's own
            if self._recogniser is None:
                self._recogniser = open_recogniser()
            try:
                text = question_of(sound_of(Path("question.webm"), recording), self._recogniser)
            except MediaError as error:
                raise UsageError(f"the recording: {error}") from error
        return text.replace('"', "")
