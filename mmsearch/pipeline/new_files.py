"""Vectors of files that are new or have changed: the artefact of `mmsearch index`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from mmsearch.core.types import MediaInfo, Modality, Progress, Skip
from mmsearch.media.base import DecodeOptions
from mmsearch.models.encoders.base import Encoder
from mmsearch.models.rerankers.base import Reranker
from mmsearch.pipeline.compute import ImageVectors, TextVectors
from mmsearch.pipeline.executor import Round
from mmsearch.pipeline.fill import Artefact, Rows
from mmsearch.pipeline.plan import ArchiveWork, Plan, Work, lies_there
from mmsearch.pipeline.reading import ArchiveEnd, Failed, Finished, Known, Reader, Twin
from mmsearch.store.local.catalogue import KnownDocument, Space
from mmsearch.store.local.commit import (
    Batch,
    Committed,
    ContentKey,
    EncodedContent,
    PlacedDocument,
    ReadArchive,
    SkippedFile,
)
from mmsearch.store.local.directory import IndexDirectory


@dataclass
class _Archive:
    """One of which some samples are committed and some are not. A run that is killed before all are has lost nothing:
    the samples that it committed are recognised by their hashes.
    """

    known: Mapping[str, KnownDocument]
    done: set[str] = field(default_factory=set)
    end: ArchiveEnd | None = None


class NewFiles(Artefact):
    """Each file of a plan becomes a document with its vectors, moves, or is skipped with a reason. ``tokens_of``: a
    reranker that shares the encoder's inputs, whose tokens are made on the way. ``limits`` names the settings that
    decide what is refused.
    """

    def __init__(
        self,
        index: IndexDirectory,
        space: Space,
        encoder: Encoder,
        plan: Plan,
        options: DecodeOptions,
        limits: str,
        tokens_of: Reranker | None = None,
    ) -> None:
        super().__init__()
        self._index, self._space_id = index, space.id
        self._plan = plan
        self._reader = Reader(encoder.prepare_image, options)
        self._limits = limits
        self.functions = {"image": ImageVectors(encoder, tokens_of), "text": TextVectors(encoder)}
        self._contents: dict[ContentKey, EncodedContent] = {}
        self._placed: list[tuple[Work, Modality, int | ContentKey]] = []
        self._twins: dict[ContentKey, list[Twin]] = {}
        self._failed: list[Failed] = []
        self._failures: dict[ContentKey, Failed] = {}
        self._archives: dict[tuple[int, str], _Archive] = {}
        self._vanished: dict[int, list[int]] = {}
        self._moved: Counter[int] = Counter()
        """How many of the vanished documents of a content have been found elsewhere."""
        self._samples = 0
        self.indexed = self.updated = self.unchanged = self.segments = self.removed = 0
        self.skipped: list[Skip] = []

    def rounds(self) -> Iterator[Round]:
        """See `Artefact.rounds`: all work of the plan in one."""
        find = self._index.catalogue.find_content
        yield Round(self._plan.work, self._reader, lambda item: find(*item, self._space_id))

    def finish(self, item: Finished, rows: Rows) -> None:
        """See `Artefact.finish`."""
        assert item.work is not None
        if not rows:
            self.take(Failed(item.item, item.work, "there is nothing in it to index", lasting=True))
            return
        modality = item.work.decoder.modality
        self._contents[item.item] = _encoded(item.item, modality, item.info, rows)
        self.rows += len(rows)
        self._placed.append((item.work, modality, item.item))
        self._tell(item.work)

    def take(self, message: Known | Twin | Failed | ArchiveEnd) -> None:
        """See `Artefact.take`."""
        if isinstance(message, ArchiveEnd):
            self._archive(message.work).end = message
        elif isinstance(message, Twin):
            self._twins.setdefault(message.item, []).append(message)
        elif isinstance(message, Known):
            self._placed.append((message.work, message.modality, message.content_id))
        else:
            if message.item is not None:
                self._failures[message.item] = message
            self._failed.append(message)
        self._tell(message.work)

    def _tell(self, work: Work | ArchiveWork) -> None:
        if isinstance(work, Work) and work.archive is not None:
            self._samples += 1
            self._archive(work.archive)
        done = self.indexed + self.updated + self.unchanged + len(self.skipped) + len(self._placed) + len(self._failed)
        plan = self._plan
        already = plan.unchanged + len(plan.skipped)
        total, skipped = already + len(plan.work) + self._samples, len(plan.skipped) + len(self.skipped)
        self.news.append(Progress("index", already + done, total, skipped, str(work.path)))

    # What is to be committed

    def batch(self) -> Batch:
        """See `Artefact.batch`."""
        self._settle_twins()
        batch = Batch(self._space_id, contents=list(self._contents.values()))
        moved: Counter[int] = Counter()
        for work, modality, content in self._placed:
            batch.documents.append(self._document(work, modality, content, moved))
        for failed in self._failed:
            self._skip(batch, failed)
        done = self._done_samples()
        for place, archive in self._archives.items():
            if archive.end is not None and archive.end.samples <= archive.done | done.get(place, set()):
                self._close(batch, archive.end)
        return batch

    def _settle_twins(self) -> None:
        """Twins whose first sight is complete or has failed by now share its fate."""
        for item, twins in list(self._twins.items()):
            known = self._index.catalogue.find_content(*item, self._space_id)
            if item in self._contents:
                content = self._contents[item]
                self._placed += [(twin.work, content.modality, item) for twin in twins]
            elif known is not None:
                self._placed += [(twin.work, known[1], known[0]) for twin in twins]
            elif item in self._failures:
                failure = self._failures[item]
                self._failed += [Failed(item, twin.work, failure.reason, failure.lasting) for twin in twins]
            else:
                continue
            del self._twins[item]

    def _document(
        self, work: Work, modality: Modality, content: int | ContentKey, moved: Counter[int]
    ) -> PlacedDocument:
        """Of a content that is new, no file can have moved here."""
        file, found = work.file, None
        if isinstance(content, int) and self._previous(work) is None:
            vanished = self._vanished_documents(content)
            place = self._moved[content] + moved[content]
            if place < len(vanished):
                found = vanished[place]
                moved[content] += 1
        described = (work.beside, file.sidecars)
        return PlacedDocument(
            work.scope.root.id, file.path, modality, file.size, file.mtime_ns, content, *described, moved=found
        )

    def _vanished_documents(self, content_id: int) -> list[int]:
        """Documents with this content whose files are no longer there: they were moved to where we met them.

        The disk is asked once for each content, however many copies of it there are.
        """
        if content_id not in self._vanished:
            self._vanished[content_id] = [
                id_
                for id_, root, path in self._index.catalogue.documents_of_content(content_id)
                if not root.is_dataset and not lies_there(self._index.root_path(root), path)
            ]
        return self._vanished[content_id]

    def _skip(self, batch: Batch, failed: Failed) -> None:
        work = failed.work
        if isinstance(work, ArchiveWork) and failed.lasting:
            batch.removed_below.append((work.scope.root.id, work.file.path))
        elif isinstance(work, Work) and failed.lasting and (previous := self._previous(work)) is not None:
            # What was indexed is no longer what lies there.
            batch.removed.append((previous.id, work.scope.root.id, work.file.path))
        decoding = work.decoding + self._limits if failed.lasting else ""
        batch.skipped.append(SkippedFile(work.scope.root.id, *work.file[:4], decoding, failed.reason))

    def _previous(self, work: Work) -> KnownDocument | None:
        """The document that the index has at this place."""
        return work.previous if work.archive is None else self._archive(work.archive).known.get(work.file.path)

    # Archives

    def _archive(self, work: ArchiveWork) -> _Archive:
        """What is known of it from before its first message."""
        place = (work.scope.root.id, work.file.path)
        if place not in self._archives:
            known = {document.path: document for document in self._index.catalogue.documents_below(*place)}
            self._archives[place] = _Archive(known)
        return self._archives[place]

    def _done_samples(self) -> dict[tuple[int, str], set[str]]:
        """By archive, the samples that are accounted for once what waits is committed."""
        done: dict[tuple[int, str], set[str]] = {}
        for work in [work for work, *_ in self._placed] + [failed.work for failed in self._failed]:
            if isinstance(work, Work) and work.archive is not None:
                done.setdefault((work.scope.root.id, work.archive.file.path), set()).add(work.file.path)
        return done

    def _close(self, batch: Batch, end: ArchiveEnd) -> None:
        root_id, file, decoding = end.work.scope.root.id, end.work.file, end.work.decoding
        batch.archives.append(ReadArchive(root_id, file.path, file.size, file.mtime_ns, decoding, end.samples))
        if end.problem:
            batch.skipped.append(SkippedFile(root_id, *file[:4], decoding + self._limits, end.problem))

    # After the commit

    def committed(self, batch: Batch, done: Committed) -> None:
        """See `Artefact.committed`."""
        for (work, *_), document, content_id in zip(self._placed, batch.documents, done.contents, strict=True):
            self._count(work, document, content_id)
        self.skipped += [Skip(str(failed.work.path), failed.reason) for failed in self._failed]
        for place, samples in self._done_samples().items():
            self._archives[place].done |= samples
        for read in batch.archives:
            end = self._archives.pop((read.root_id, read.path)).end
            if end is not None and end.problem:
                self.skipped.append(Skip(str(end.work.path), end.problem))
        self.segments += done.vectors
        self.removed += done.removed
        self.rows = 0
        self._contents, self._placed, self._failed = {}, [], []

    def _count(self, work: Work, document: PlacedDocument, content_id: int) -> None:
        previous = self._previous(work)
        if document.moved is not None:
            self._moved[content_id] += 1
            self.updated += 1
        elif previous is None:
            self.indexed += 1
        elif (previous.content_id, previous.sidecars) == (content_id, document.sidecars):
            self.unchanged += 1
        else:
            self.updated += 1


def _encoded(item: ContentKey, modality: Modality, info: MediaInfo, rows: Rows) -> EncodedContent:
    segments = [(piece.start_s, piece.end_s, piece.text) for piece, _ in rows]
    tokens = [output["tokens"] for _, output in rows if "tokens" in output]
    return EncodedContent(item, modality, info, segments, np.stack([output["vector"] for _, output in rows]), tokens)
