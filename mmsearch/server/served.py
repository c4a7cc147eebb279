"""What all addresses share: the open index, what may be done with it, and what is kept between requests."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch.core.errors import MediaError, UsageError
from mmsearch.server.access import is_in_place

if TYPE_CHECKING:
    from mmsearch.api import Index
    from mmsearch.core.types import Modality
    from mmsearch.models.speech import SpeechRecogniser
    from mmsearch.query.duplicates import Duplicates

UPLOADS = 2
"""So many pictures are taken in and looked at at once, whoever sends them."""


class Served:
    """One open index. ``allow_changes``: whether documents may be taken out of it."""

    def __init__(self, index: Index, *, allow_changes: bool = False) -> None:
        self.index, self.allow_changes = index, allow_changes
        self.uploads = asyncio.Semaphore(UPLOADS)
        self._recogniser: SpeechRecogniser | None = None
        self._listening, self._comparing, self._changing = threading.Lock(), threading.Lock(), threading.Lock()
        self._duplicates: tuple[Any, list[Duplicates]] | None = None

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

    def duplicates(self, where: str, near: float | None) -> list[Duplicates]:
        """All groups; kept until others are asked for, or the index changes: a page asks for them in parts."""
        with self._comparing:
            key = (self.index.browse.version, where, near)
            if self._duplicates is None or self._duplicates[0] != key:
                self._duplicates = (key, list(self.index.duplicates(where, near=near)))
            return self._duplicates[1]

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
