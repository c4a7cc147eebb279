"""Gives an encoder vectors of everything that is indexed, beside those of the encoder that answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mmsearch.core.types import Progress
from mmsearch.media.text.passages import cut
from mmsearch.models.encoders.base import Encoder, FloatArray
from mmsearch.pipeline.bounded_queue import BoundedQueue
from mmsearch.pipeline.interrupts import interrupts_held
from mmsearch.pipeline.plan import ArchiveWork, archive_of
from mmsearch.pipeline.reading import ArchiveEnd, Failed, Finished, Message, Piece, Readers
from mmsearch.store.local.catalogue import Space
from mmsearch.store.local.catalogue.coverage import (
    PendingContent,
    Place,
    add_vectors,
    coverage,
    lacking_segments,
    leave_out,
    pending_contents,
    pending_passages,
)
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.switch.files import CHANGED, OTHER_VERSION, Files, Reading
from mmsearch.switch.moments import Span, match

PAGE = 2048
"""Contents that are looked up at a time."""
PASSAGES = 256
"""Passages that are encoded at a time."""
_COMMIT_SEGMENTS = 1024
_COMMIT_SECONDS = 1.0
"""A crash loses at most so much work, and the batch in hand."""
_LEAST_LOOK_AHEAD = 64


@dataclass
class _Job:
    """A content whose frames are on their way through the encoder."""

    content: PendingContent
    spans: list[Span] = field(default_factory=list)
    vectors: dict[int, FloatArray] = field(default_factory=dict)
    is_finished: bool = False

    @property
    def is_complete(self) -> bool:
        return self.is_finished and len(self.vectors) == len(self.spans)


class Filler:
    """Fills one space. Other processes may write between its commits; what they remove is left away.

    A commit is that of indexing: vectors appended and synced, then one transaction. Texts are not read again: their
    passages stand in the catalogue. A passage that is too long for this encoder is cut, and gets the direction of the
    mean of its parts, so that it stays one segment and nothing of it is lost.
    """

    def __init__(
        self, index: IndexDirectory, encoder: Encoder, space: Space, *, threads: int, memory_mb: float,
        progress: Callable[[Progress], None],
    ) -> None:  # fmt: skip
        self._index = index
        self._encoder = encoder
        self._space_id = space.id
        self._threads = threads
        self._memory_mb = memory_mb
        self._progress = progress
        self._files = Files(index, encoder)
        self._jobs: dict[int, _Job] = {}
        self._batch: list[tuple[_Job, int, npt.NDArray[np.generic]]] = []
        self._ready: list[tuple[int, FloatArray]] = []
        self._reasons: dict[int, str] = {}
        self._open: dict[int, PendingContent] = {}
        self._failed: dict[int, str] = {}
        self._twins: set[int] = set()
        self._archives: dict[tuple[int, str], str] = {}
        self._next_commit = time.monotonic() + _COMMIT_SECONDS
        counts = coverage(index.catalogue, space.id)
        self._total = counts.documents
        self._done = counts.covered
        self._left_out = 0
        self.segments = 0

    def run(self, *, retry: bool = True) -> bool:
        """Fills what is missing, once through; returns whether it was interrupted (Ctrl-C), with all saved.

        With ``retry``, files that could not be read at an earlier time are tried again.
        """
        try:
            self._fill_passages()
            after = 0
            while contents := pending_contents(self._index.catalogue, self._space_id, after, PAGE, retry=retry):
                after = contents[-1].id
                self._read_all(contents)
            self._commit()
        except KeyboardInterrupt:
            self._commit()
            return True
        return False

    # Texts

    def _fill_passages(self) -> None:
        after, content = 0, 0
        while found := pending_passages(self._index.catalogue, self._space_id, after, PASSAGES):
            after = found[-1][0]
            vectors = self._encode_passages([text for _, _, text in found])
            self._ready += zip([segment for segment, _, _ in found], vectors, strict=True)
            contents = {id_ for _, id_, _ in found}
            self._done += len(contents - {content})
            content = found[-1][1]
            self._tell(None)
            self._commit_when_due()
        self._commit()

    def _encode_passages(self, texts: Sequence[str]) -> FloatArray:
        parts = [list(cut(text, self._encoder.max_text_tokens, self._encoder.count_tokens)) or [text] for text in texts]
        vectors = self._encoder.encode_texts([part for one in parts for part in one])
        starts = np.cumsum([0, *(len(one) for one in parts[:-1])])
        sums = np.add.reduceat(vectors, starts, axis=0)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        means: FloatArray = np.where(lengths > 1e-6, sums / np.maximum(lengths, 1e-6), vectors[starts])
        return means.astype(np.float32)

    # Images and videos

    def _read_all(self, contents: Sequence[PendingContent]) -> None:
        """Tries the places of every content until one holds it; then it has its vectors, or a reason."""
        places = {content.id: self._files.places(content) for content in contents}
        left = list(contents)
        while left:
            self._open, self._failed = {content.id: content for content in left}, {}
            self._twins = set()
            wanted = [(content, places[content.id].pop(0)) for content in left]
            readings, reasons = self._files.plan(wanted)
            self._failed.update(reasons)
            for reading in readings:
                self._read(reading)
            for content, place in wanted:
                if content.id in self._twins & self._open.keys() - self._failed.keys():
                    places[content.id].insert(0, place)
                if content.id in self._open:
                    self._failed.setdefault(content.id, self._unmet(place))
            left = [content for content in left if content.id in self._failed and places[content.id]]
            again = {content.id for content in left}
            for content_id, reason in self._failed.items():
                if content_id not in again:
                    self._leave_out(self._open[content_id], reason)

    def _unmet(self, place: Place) -> str:
        archive = archive_of(place.path) or ""
        return self._archives.get((place.root.id, archive), "it is no longer in its archive")

    def _read(self, reading: Reading) -> None:
        readers = Readers(
            reading.work, self._index.catalogue, self._space_id, self._encoder,
            reading.options.decode_options(self._encoder), threads=self._threads,
            queue=BoundedQueue(
                items=max(_LEAST_LOOK_AHEAD, 4 * self._encoder.batch_size), size=int(1e6 * self._memory_mb)
            ),
        )  # fmt: skip
        try:
            for message in readers:
                self._take(message)
                self._commit_when_due()
            self._encode()
        finally:
            readers.stop()
            self._jobs.clear()
            self._batch.clear()

    def _take(self, message: Message) -> None:
        work = message.work
        if isinstance(work, ArchiveWork) or isinstance(message, ArchiveEnd):
            place = (work.scope.root.id, work.file.path)
            if isinstance(message, Failed):
                self._archives[place] = message.reason
            elif isinstance(message, ArchiveEnd) and message.problem:
                self._archives[place] = f"it was not met in its archive ({message.problem})"
            return
        content = self._open.get(work.previous.content_id) if work.previous is not None else None
        if content is None:
            return  # a sample of an archive that needs no vectors
        if isinstance(message, Piece):
            self._add_piece(content, message)
        elif isinstance(message, Finished):
            self._finish(content, message)
        elif isinstance(message, Failed):
            self._jobs.pop(id(message.work), None)
            self._failed[content.id] = message.reason
        elif message.hash != content.hash:  # its bytes are known from elsewhere: it holds something else now
            self._failed[content.id] = CHANGED
        else:  # another file, which has changed, may have taken its bytes for its own: once more, later
            self._twins.add(content.id)

    def _add_piece(self, content: PendingContent, piece: Piece) -> None:
        if piece.array is None:
            return
        job = self._jobs.setdefault(id(piece.work), _Job(content))
        job.spans.append((piece.start_s, piece.end_s))
        self._batch.append((job, len(job.spans) - 1, piece.array))
        if len(self._batch) >= self._encoder.batch_size:
            self._encode()

    def _finish(self, content: PendingContent, message: Finished) -> None:
        job = self._jobs.pop(id(message.work), _Job(content))
        if message.hash != content.hash:
            self._failed[content.id] = CHANGED
        elif message.work.decoding != content.decoding:
            self._failed[content.id] = OTHER_VERSION
        else:
            job.is_finished = True
            if job.is_complete:
                self._complete(job)

    def _encode(self) -> None:
        batch, self._batch = self._batch, []
        if not batch:
            return
        vectors = self._encoder.encode_prepared(np.stack([array for _, _, array in batch]))
        for (job, number, _), vector in zip(batch, vectors, strict=True):
            job.vectors[number] = vector
            if job.is_complete:
                self._complete(job)

    def _complete(self, job: _Job) -> None:
        content = job.content
        if content.id not in self._open:
            return
        chosen = match([(one.start_s, one.end_s) for one in content.segments], job.spans)
        if chosen is None:
            self._failed[content.id] = (
                f"it gives {len(job.spans)} pictures now, and gave {len(content.segments)} when it was indexed"
            )
            return
        self._ready += [
            (segment.id, job.vectors[number]) for segment, number in zip(content.segments, chosen, strict=True)
        ]
        self._open.pop(content.id)
        self._done += len(content.places)
        self._tell(content)

    def _leave_out(self, content: PendingContent, reason: str) -> None:
        self._reasons[content.id] = reason
        self._left_out += len(content.places)
        self._tell(content)

    def _tell(self, content: PendingContent | None) -> None:
        done = min(self._done + self._left_out, self._total)
        path = content.places[0].path if content is not None else None
        self._progress(Progress("index", done, self._total, self._left_out, path))

    # Commits

    def _commit_when_due(self) -> None:
        if len(self._ready) >= _COMMIT_SEGMENTS or (self._ready and time.monotonic() > self._next_commit):
            self._commit()

    def _commit(self) -> None:
        if not self._ready and not self._reasons:
            return
        with self._index.writing(wait_s=-1) as writable, interrupts_held():
            self.segments += commit(writable, self._space_id, self._ready, self._reasons.items())
            self._ready, self._reasons = [], {}
        self._next_commit = time.monotonic() + _COMMIT_SECONDS


def commit(
    index: IndexDirectory, space_id: int, vectors: Sequence[tuple[int, FloatArray]], reasons: Iterable[tuple[int, str]]
) -> int:
    """Gives segments, by id, their vectors of a space; returns how many were still there and without one.

    ``index`` must be open for writing. ``reasons``: contents, by id, that are left without.
    """
    space = next(space for space in index.catalogue.spaces() if space.id == space_id)
    known = dict(vectors)
    segments = lacking_segments(index.catalogue, space_id, known)
    if segments:
        index.vector_file(space).append(np.stack([known[segment] for segment in segments]), at=space.row_count)
    with index.catalogue.transaction():
        add_vectors(index.catalogue, space_id, segments, space.row_count)
        leave_out(index.catalogue, space_id, reasons)
    return len(segments)
