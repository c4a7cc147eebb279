"""From model inputs to committed documents: batches, encodes, and commits whole files."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from mmsearch.core.types import Modality, Skip
from mmsearch.models.encoders.base import Encoder, FloatArray
from mmsearch.models.rerankers.base import TokenArray
from mmsearch.pipeline.interrupts import interrupts_held
from mmsearch.pipeline.open_archives import OpenArchives
from mmsearch.pipeline.plan import ArchiveWork, Work, lies_there
from mmsearch.pipeline.reading import ArchiveEnd, Failed, Finished, Known, Piece, Twin
from mmsearch.pipeline.seconds import Seconds
from mmsearch.store.local.catalogue import NewContent, NewSegment, Space
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.reranker_cache import TokenKeeper

Outcome = Literal["indexed", "updated", "unchanged"] | Skip
_COMMIT_SEGMENTS = 1024
_COMMIT_SECONDS = 1.0
"""A crash loses at most so much work (and the batches in hand) …"""
_COMMIT_SHARE = 0.05
"""… unless commits are so slow on this disk that they would take more than this share of the time."""


@dataclass
class Job:
    """A file on its way through the encoder."""

    pieces: list[Piece] = field(default_factory=list)
    vectors: dict[int, FloatArray] = field(default_factory=dict)
    tokens: dict[int, TokenArray] = field(default_factory=dict)
    """For a reranker, where they are kept."""
    finished: Finished | None = None

    @property
    def complete(self) -> bool:
        """Whether all of its segments have vectors."""
        return self.finished is not None and len(self.vectors) == len(self.pieces)


class Writer:
    """Collects pieces into batches, encodes them, and commits files once all their segments have vectors.

    The order of a commit is: vectors appended and synced, then one transaction of the catalogue. A crash in
    between leaves bytes behind the committed rows, which the next writer cuts off.
    """

    def __init__(
        self,
        index: IndexDirectory,
        space: Space,
        encoder: Encoder,
        *,
        limits: str,
        settled: Callable[[bytes, str], None],
        keeper: TokenKeeper | None = None,
    ) -> None:
        self._index = index
        self._space = space
        self._encoder = encoder
        self._limits = limits
        self._settled = settled
        self._keeper = keeper if keeper is not None and keeper.shares_inputs(encoder) else None
        self._jobs: dict[int, Job] = {}
        self._batches: dict[str, list[tuple[Job, int]]] = {"image": [], "text": []}
        self._ready: list[Job] = []
        self._ready_segments = 0
        self._others: list[Known | Failed] = []
        self._twins: dict[tuple[bytes, str], list[Twin]] = {}
        self._failures: dict[tuple[bytes, str], Failed] = {}
        self._archives = OpenArchives(index.catalogue, limits)
        self._vanished: dict[int, deque[int]] = {}
        self._taken: list[tuple[int, int]] = []
        self._next_commit = time.monotonic() + _COMMIT_SECONDS
        self.seconds = Seconds()
        self.indexed = self.updated = self.unchanged = self.segments = self.removed = 0
        self.skipped: list[Skip] = []

    @property
    def files_in_hand(self) -> int:
        """Files that are committed or only wait for the next commit."""
        committed = self.indexed + self.updated + self.unchanged + len(self.skipped)
        return committed + len(self._ready) + len(self._others)

    def take(self, message: Piece | Finished | Known | Twin | Failed | ArchiveEnd) -> None:
        """Handles one message of the readers; encodes and commits when it is time."""
        if isinstance(message, Piece):
            self._add_piece(message)
        elif isinstance(message, Finished):
            self._finish(message)
        elif isinstance(message, ArchiveEnd):
            self._archives.take(message)
        elif isinstance(message, Twin):
            self._twins.setdefault((message.hash, message.work.decoding), []).append(message)
        else:
            self._jobs.pop(id(message.work), None)
            if isinstance(message, Failed) and message.hash is not None:
                self._failures[message.hash, message.work.decoding] = message
            self._others.append(message)
        if self._ready_segments >= _COMMIT_SEGMENTS or time.monotonic() > self._next_commit:
            self.commit()

    def finish(self) -> None:
        """Encodes what waits in unfilled batches and commits all that is complete."""
        for kind in self._batches:
            self._encode(kind)
        self.commit()

    def _add_piece(self, piece: Piece) -> None:
        job = self._jobs.setdefault(id(piece.work), Job())
        kind = "image" if piece.array is not None else "text"
        job.pieces.append(piece)
        batch = self._batches[kind]
        batch.append((job, len(job.pieces) - 1))
        if len(batch) >= self._encoder.batch_size:
            self._encode(kind)

    def _finish(self, message: Finished) -> None:
        job = self._jobs.pop(id(message.work), None)
        if job is None:
            failure = Failed(message.work, message.hash, "there is nothing in it to index", lasting=True)
            self.take(failure)
            return
        job.finished = message
        self._collect(job)

    def _encode(self, kind: str) -> None:
        batch, self._batches[kind] = self._batches[kind], []
        if not batch:
            return
        with interrupts_held():  # a Ctrl-C finds the batch done, not its work lost
            self._encode_batch(kind, batch)

    def _encode_batch(self, kind: str, batch: list[tuple[Job, int]]) -> None:
        with self.seconds.of("encode"):
            pieces = [job.pieces[number] for job, number in batch]
            tokens: TokenArray | None = None
            if kind == "text":
                vectors = self._encoder.encode_texts([piece.text or "" for piece in pieces])
            elif self._keeper is None:
                vectors = self._encoder.encode_prepared(np.stack([piece.array for piece in pieces]))  # type: ignore[misc]
            else:
                vectors, tokens = self._keeper.encode(np.stack([piece.array for piece in pieces]))  # type: ignore[misc]
        for place, ((job, number), vector) in enumerate(zip(batch, vectors, strict=True)):
            if tokens is not None:
                job.tokens[number] = tokens[place]
            piece = job.pieces[number]
            job.pieces[number] = Piece(piece.work, None, piece.text, piece.start_s, piece.end_s)  # drops the pixels
            job.vectors[number] = vector
            self._collect(job)

    def _collect(self, job: Job) -> None:
        if job.complete:
            self._ready.append(job)
            self._ready_segments += len(job.pieces)

    def commit(self) -> None:
        """Commits all complete files, and what became of the files that needed no encoding."""
        started = time.monotonic()
        with interrupts_held(), self.seconds.of("commit"):
            self._commit()
        ended = time.monotonic()
        self._next_commit = ended + max(_COMMIT_SECONDS, (ended - started) / _COMMIT_SHARE)

    def _commit(self) -> None:
        self._give_back()
        rows = self._index.catalogue.row_count(self._space.id)
        vectors = [job.vectors[number] for job in self._ready for number in range(len(job.pieces))]
        if vectors:
            self._index.vector_file(self._space).append(np.stack(vectors), at=rows)
        kept = self._append_tokens(rows)
        with self._index.catalogue.transaction():
            outcomes = self._write_ready(rows)
            self._index.catalogue.set_row_count(self._space.id, rows + len(vectors))
            if self._keeper is not None:
                self._keeper.record(self._space, *kept)
            waiting = self._resolve_twins()
            outcomes += [self._write_other(message) for message in self._others]
            closed = self._close_archives()
        self._account(outcomes, waiting, len(vectors))
        self.removed += self._archives.account(closed)
        self.skipped.extend(Skip(str(end.work.path), end.problem) for end in closed if end.problem)

    def _append_tokens(self, first_row: int) -> tuple[int, list[int]]:
        """(place of the first in the token file, rows of the vector file that they belong to)."""
        rows: list[int] = []
        tokens: list[TokenArray] = []
        if self._keeper is None:
            return 0, rows
        for job in self._ready:
            for number in sorted(job.tokens):
                rows.append(first_row + number)
                tokens.append(job.tokens[number])
            first_row += len(job.pieces)
        return self._keeper.append(tokens), rows

    def _close_archives(self) -> list[ArchiveEnd]:
        """Archives are closed in the commit that holds the last of their samples."""
        written = [job.finished.work for job in self._ready if job.finished] + [other.work for other in self._others]
        return self._archives.close([work for work in written if isinstance(work, Work)])

    def _write_ready(self, first_row: int) -> list[Outcome]:
        outcomes: list[Outcome] = []
        row = first_row
        for job in self._ready:
            assert job.finished is not None
            work = job.finished.work
            segments = [
                NewSegment(row + number, piece.start_s, piece.end_s, piece.text)
                for number, piece in enumerate(job.pieces)
            ]
            row += len(segments)
            modality = work.decoder.modality
            content = NewContent(job.finished.hash, work.decoding, modality, job.finished.info, segments)
            content_id = self._index.catalogue.add_content(self._space, content)
            outcomes.append(self._write_document(work, modality, content_id, is_new=True))
        return outcomes

    def _write_document(self, work: Work, modality: Modality, content_id: int, *, is_new: bool = False) -> Outcome:
        """``is_new``: the content was never seen before, so its file cannot have moved here."""
        catalogue, root_id, file = self._index.catalogue, work.scope.root.id, work.file
        told = (work.caption, file.sidecars)
        vanished = None if work.previous or is_new else self._take_vanished(content_id)
        if vanished is not None:
            catalogue.move_document(vanished, root_id, file.path, file.size, file.mtime_ns, *told)
            return "updated"
        catalogue.put_document(root_id, file.path, modality, file.size, file.mtime_ns, content_id, *told)
        if work.previous is None:
            return "indexed"
        same = (work.previous.content_id, work.previous.sidecars) == (content_id, file.sidecars)
        return "unchanged" if same else "updated"

    def _take_vanished(self, content_id: int) -> int | None:
        """A document with this content whose file is no longer there: the file was moved to where we met it.

        The disk is asked once for each content, however many copies of it there are.
        """
        if content_id not in self._vanished:
            documents = self._index.catalogue.documents_of_content(content_id)
            self._vanished[content_id] = deque(
                id_
                for id_, root, path in documents
                if not root.is_dataset and not lies_there(self._index.root_path(root), path)
            )
        if not self._vanished[content_id]:
            return None
        taken = self._vanished[content_id].popleft()
        self._taken.append((content_id, taken))
        return taken

    def _give_back(self) -> None:
        """What a commit took that was rolled back then (by an interrupt) has not moved yet."""
        while self._taken:
            content_id, document_id = self._taken.pop()
            self._vanished.setdefault(content_id, deque()).appendleft(document_id)

    def _write_other(self, message: Known | Failed) -> Outcome:
        work = message.work
        if isinstance(message, Known):
            return self._write_document(message.work, message.modality, message.content_id)
        if isinstance(work, ArchiveWork):
            self._index.catalogue.remove_below(work.scope.root.id, work.file.path)
        elif message.lasting and work.previous is not None:  # what was indexed is no longer what lies there
            self._index.catalogue.remove_documents([(work.previous.id, work.scope.root.id, work.file.path)])
        decoding = work.decoding + self._limits if message.lasting else ""
        self._index.catalogue.put_skipped(work.scope.root.id, *work.file[:4], decoding, message.reason)
        return Skip(str(work.path), message.reason)

    def _resolve_twins(self) -> dict[tuple[bytes, str], list[Twin]]:
        """Twins whose first sight is committed (or has failed) by now share its fate; returns the others."""
        waiting: dict[tuple[bytes, str], list[Twin]] = {}
        for key, twins in self._twins.items():
            known = self._index.catalogue.find_content(*key, self._space.id)
            failure = self._failures.get(key)
            if known is not None:
                self._others.extend(Known(twin.work, twin.hash, *known) for twin in twins)
            elif failure is not None:
                self._others.extend(Failed(twin.work, twin.hash, failure.reason, failure.lasting) for twin in twins)
            else:
                waiting[key] = twins
        return waiting

    def _account(self, outcomes: list[Outcome], waiting: dict[tuple[bytes, str], list[Twin]], segments: int) -> None:
        """After the commit, and only then: counts, and forgets what has been written."""
        self._taken.clear()
        counts = Counter(outcome for outcome in outcomes if isinstance(outcome, str))
        self.indexed += counts["indexed"]
        self.updated += counts["updated"]
        self.unchanged += counts["unchanged"]
        self.skipped.extend(outcome for outcome in outcomes if isinstance(outcome, Skip))
        self.segments += segments
        for job in self._ready:
            assert job.finished is not None
            self._settled(job.finished.hash, job.finished.work.decoding)
        self._ready, self._ready_segments, self._others = [], 0, []
        self._twins = waiting
