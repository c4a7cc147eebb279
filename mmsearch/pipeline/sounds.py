"""What sounds in videos and recordings: vectors of windows of sound, in the space of an encoder of sounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.types import MediaInfo, Progress, Skip
from mmsearch.media.base import DecodeOptions
from mmsearch.models.sounds.base import SoundEncoder
from mmsearch.pipeline.compute import SoundVectors
from mmsearch.pipeline.fill import Rows
from mmsearch.pipeline.plan import Scope, Work
from mmsearch.pipeline.reading import Finished, Message, Piece, Reader, Seconds
from mmsearch.pipeline.stored_contents import OfContents, OptionsOf
from mmsearch.store.local.catalogue.coverage import Lacking, PendingContent
from mmsearch.store.local.catalogue.sounds import SoundContent, claim_sounds, lacking_sounds
from mmsearch.store.local.commit import Batch, Committed, ContentKey
from mmsearch.store.local.directory import IndexDirectory


class SoundsOfContents(OfContents):
    """Windows of sound of the videos and recordings of some scopes. Those of another encoder are dropped first.

    It comes last, and everything else can be searched meanwhile. A file is heard whole or not at all: one in which a
    run was interrupted is heard again from its beginning. One without sound has no windows, and is not tried again.
    """

    trusts_times = True
    commit_rows = 256

    def __init__(
        self, index: IndexDirectory, encoder: SoundEncoder, scopes: Sequence[Scope], options: OptionsOf
    ) -> None:
        """``index`` must be open for writing."""
        super().__init__(index, index.space().id, np.asarray, options)
        with index.catalogue.transaction():
            claim_sounds(index.catalogue, encoder.spec)
        self.functions = {"sound": SoundVectors(encoder)}
        self._encoder = encoder
        self._scopes = [(scope.root.id, scope.below) for scope in scopes if not scope.root.is_dataset]
        self._total = self.lacking().count(index.catalogue)
        self._done = 0
        self.heard = 0
        """Files in which something sounds, and whose windows are committed."""
        self.unheard: list[Skip] = []

    def lacking(self) -> Lacking:
        """See `OfContents.lacking`."""
        return lacking_sounds(self._scopes)

    def reader(self, options: DecodeOptions) -> Reader:
        """See `OfContents.reader`."""
        return WindowReader(self._prepare, options, self._encoder.rate, self._encoder.window_s)

    def made(self, content: PendingContent, rows: Rows) -> str | None:
        """See `OfContents.made`."""
        spans = [(piece.start_s or 0.0, piece.end_s or 0.0) for piece, _ in rows]
        self._keep(content, spans, [row["vector"] for _, row in rows])
        return None

    def failed(self, content: PendingContent, reason: str, *, lasting: bool) -> None:
        """See `OfContents.failed`."""
        if lasting:
            self._keep(content, [], [], reason)

    def _keep(
        self, content: PendingContent, spans: Sequence[tuple[float, float]], vectors: Sequence[Any],
        problem: str | None = None,
    ) -> None:  # fmt: skip
        rows = np.stack(vectors) if len(vectors) else np.zeros((0, self._encoder.spec.dim), np.float32)
        self._next.sounds.append(SoundContent(content.id, spans, rows, problem))
        place = content.places[0]
        path = str(Path(self._index.root_path(place.root)) / place.path)
        if problem is not None:
            self.unheard.append(Skip(path, problem))
        self._done += 1
        self.news.append(Progress("listen", self._done, self._total, len(self.unheard), path))

    def committed(self, batch: Batch, done: Committed) -> None:
        """See `Artefact.committed`."""
        self.heard += sum(bool(len(one.spans)) for one in batch.sounds)
        super().committed(batch, done)


@dataclass(frozen=True)
class WindowReader(Reader):
    """Reads the windows of an item, of ``window_s`` seconds at ``rate`` samples a second; it holds two of them."""

    rate: int = 48_000
    window_s: float = 10.0

    def _decode(
        self, item: ContentKey, work: Work, data: bytes | None, stopped: Callable[[], bool], spent: Seconds
    ) -> Iterator[Message]:
        from mmsearch.media.sound.containers import has_sound, opened_container, sound_of, windows_of

        with spent.of("decode"), opened_container(work.path, data) as container:
            is_silent = not has_sound(container)
        blocks = iter(()) if is_silent else sound_of(work.path, data, self.rate)
        windows = windows_of(blocks, self.rate, self.window_s)
        number = 0
        while (found := _next(windows, spent)) is not None:
            if stopped():
                return
            start, samples = found
            yield Piece(item, number, "sound", samples, start, start + len(samples) / self.rate)
            number += 1
        yield Finished(item, number, MediaInfo(), work)


def _next(
    windows: Iterator[tuple[float, npt.NDArray[np.float32]]], spent: Seconds
) -> tuple[float, npt.NDArray[np.float32]] | None:
    with spent.of("decode"):
        return next(windows, None)
