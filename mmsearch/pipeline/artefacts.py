"""What is made of contents that are in the index: vectors of another encoder, the reranker cache, text in pictures."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import EncoderError
from mmsearch.core.types import MediaInfo, Progress, Skip
from mmsearch.media.ocr.base import TextReader
from mmsearch.models.encoders.base import Encoder
from mmsearch.models.rerankers import open_reranker
from mmsearch.models.rerankers.base import Reranker
from mmsearch.pipeline.compute import ImageTokens, ImageVectors, TextInImages, TextVectors
from mmsearch.pipeline.executor import Round
from mmsearch.pipeline.fill import Rows
from mmsearch.pipeline.plan import Scope
from mmsearch.pipeline.reading import Finished, Piece
from mmsearch.pipeline.stored_contents import OfContents, OptionsOf, rows_of_segments
from mmsearch.store.local.catalogue import Space
from mmsearch.store.local.catalogue.coverage import (
    Lacking,
    PendingContent,
    StoredSegment,
    coverage,
    lacking_text,
    lacking_tokens,
    lacking_vectors,
    pending_passages,
)
from mmsearch.store.local.catalogue.reranker_cache import token_table
from mmsearch.store.local.commit import Batch, Committed, ContentKey, ContentText
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.reranker_cache import claim

if TYPE_CHECKING:
    from PIL.Image import Image

PASSAGES = 256
"""That are encoded at a time."""
_LOG = logging.getLogger("mmsearch")
_SAME_TIME_S = 0.001


class VectorsOfContents(OfContents):
    """Vectors of one space, beside those of the encoder that answers; contents that cannot be read are left out with
    the reason. With ``retry``, those that were left out at an earlier time are tried again.

    Texts are not read again: their passages stand in the catalogue. One that is too long for this encoder stays one
    segment, see `TextVectors`.
    """

    def __init__(self, index: IndexDirectory, encoder: Encoder, space: Space, options: OptionsOf) -> None:
        super().__init__(index, space.id, encoder.prepare_image, options)
        self.functions = {
            "image": ImageVectors(encoder),
            "text": TextVectors(encoder, batch_size=PASSAGES, cut_long=True),
        }
        self._passages: dict[ContentKey, list[int]] = {}
        counts = coverage(index.catalogue, space.id)
        self._total, self._done = counts.documents, counts.covered
        self._left_out = 0
        self.retry = True
        self.segments = 0

    def lacking(self) -> Lacking:
        """See `OfContents.lacking`."""
        return lacking_vectors(self._space_id, retry=self.retry)

    def rounds(self) -> Iterator[Round]:
        """See `Artefact.rounds`."""
        after, content = 0, 0
        while passages := pending_passages(self._index.catalogue, self._space_id, after, 4 * PASSAGES):
            after = passages[-1][0]
            yield Round(pieces=list(self._pieces(passages)))
            contents = {id_ for _, id_, _ in passages}
            self._done += len(contents - {content})
            content = passages[-1][1]
            self._tell(None)
        yield from super().rounds()

    def _pieces(self, passages: Sequence[tuple[int, int, str]]) -> Iterator[Piece | Finished]:
        """Those of each content as an item of its own."""
        for content, own in groupby(passages, key=lambda passage: passage[1]):
            item, segments = (b"", f"passages of {content}"), []
            for number, (segment, _, text) in enumerate(own):
                yield Piece(item, number, "text", text)
                segments.append(segment)
            self._passages[item] = segments
            yield Finished(item, len(segments), MediaInfo())

    def finish(self, item: Finished, rows: Rows) -> None:
        """See `Artefact.finish`."""
        segments = self._passages.pop(item.item, None)
        if segments is None:
            super().finish(item, rows)
            return
        self._next.vectors += [(segment, row["vector"]) for segment, (_, row) in zip(segments, rows, strict=True)]
        self.rows += len(rows)

    def made(self, content: PendingContent, rows: Rows) -> str | None:
        """See `OfContents.made`."""
        chosen = rows_of_segments(content.segments, rows)
        if isinstance(chosen, str):
            return chosen
        pairs = zip(content.segments, chosen, strict=True)
        self._next.vectors += [(segment.id, rows[number][1]["vector"]) for segment, number in pairs]
        self._done += len(content.places)
        self._tell(content)
        return None

    def failed(self, content: PendingContent, reason: str, *, lasting: bool) -> None:
        """See `OfContents.failed`."""
        self._next.left_out.append((content.id, reason))
        self._left_out += len(content.places)
        self._tell(content)

    def committed(self, batch: Batch, done: Committed) -> None:
        """See `Artefact.committed`."""
        self.segments += done.vectors
        super().committed(batch, done)

    def _tell(self, content: PendingContent | None) -> None:
        done = min(self._done + self._left_out, self._total)
        path = content.places[0].path if content is not None else None
        self.news.append(Progress("index", done, self._total, self._left_out, path))


class RerankerCache(OfContents):
    """What a reranker keeps of images, of those that were indexed before it was kept, or by another model.

    What cannot be read now is left without: a query opens it. ``index`` must be open for writing.
    """

    commit_rows = 256

    def __init__(self, index: IndexDirectory, name: str, reranker: Reranker, options: OptionsOf) -> None:
        """``name`` opens the reranker again; the cache of another one is dropped."""
        super().__init__(index, index.space().id, reranker.prepare_image, options)
        self.functions = {"image": ImageTokens(reranker)}
        self.reranker = reranker
        self._file_id = claim(index, name, reranker.spec).id
        self._done = self._total = 0

    def lacking(self) -> Lacking:
        """See `OfContents.lacking`."""
        return lacking_tokens(self._index.catalogue, self._file_id)

    def rounds(self) -> Iterator[Round]:
        """See `Artefact.rounds`."""
        self._done, self._total = 0, self.lacking().count(self._index.catalogue)
        return super().rounds()

    def made(self, content: PendingContent, rows: Rows) -> str | None:
        """See `OfContents.made`."""
        chosen = rows_of_segments(content.segments, rows)
        if isinstance(chosen, str):
            return chosen
        pairs = zip(content.segments, chosen, strict=True)
        self._next.tokens += [(segment.id, rows[number][1]["tokens"]) for segment, number in pairs]
        self._tell(content)
        return None

    def failed(self, content: PendingContent, reason: str, *, lasting: bool) -> None:
        """See `OfContents.failed`."""
        self._tell(content)

    def _tell(self, content: PendingContent) -> None:
        self._done += 1
        self.news.append(Progress("tokens", self._done, self._total, path=content.places[0].path))


def open_cache(index: IndexDirectory, encoder: Encoder, name: str | None, options: OptionsOf) -> RerankerCache | None:
    """The cache of the reranker ``name``, else of the one whose cache the index has already.

    Raises:
        EncoderError: there is no reranker ``name``. One that the index knows and cannot be opened now is done without.
    """
    if name is not None:
        return RerankerCache(index, name, open_reranker(name, encoder=encoder), options)
    table = token_table(index.catalogue)
    if table is None:
        return None
    try:
        reranker = open_reranker(table.reranker, encoder=encoder)
    except EncoderError as error:
        _LOG.warning("the reranker cache is not filled with what is new: %s", error)
        return None
    if reranker.spec.digest != table.digest:
        _LOG.warning("the reranker cache is not filled with what is new: %s is another one now", table.reranker)
        return None
    return RerankerCache(index, table.reranker, reranker, options)


def lacks_tokens(index: IndexDirectory) -> bool:
    """Whether there is a reranker cache, and some picture that lies on the disk is not in it."""
    table = token_table(index.catalogue)
    return table is not None and bool(lacking_tokens(index.catalogue, table.id).contents(index.catalogue, limit=1))


class TextInPictures(OfContents):
    """What is written in the pictures and videos of some scopes, as far as ``reader`` has not looked at them.

    It comes after everything is embedded and committed: reading a picture takes many times as long as embedding it, so
    all can be searched meanwhile, and an index that was made without it is completed without a vector being made again.
    A file that has changed or gone since it was indexed is left for the next run; one that fails is recorded with its
    reason and not tried again by this reader.
    """

    def __init__(self, index: IndexDirectory, reader: TextReader, scopes: Sequence[Scope], options: OptionsOf) -> None:
        super().__init__(index, index.space().id, _pixels, options)
        self.functions = {"image": TextInImages(reader)}
        self._name = reader.name
        self._lacking = lacking_text(
            index.catalogue,
            reader.name,
            [(scope.root.id, scope.below) for scope in scopes if not scope.root.is_dataset],
        )
        self._total = self._lacking.count(index.catalogue)
        self._done = self.read = 0
        self._paths: dict[int, str] = {}
        self.unread: list[Skip] = []

    def lacking(self) -> Lacking:
        """See `OfContents.lacking`."""
        return self._lacking

    def made(self, content: PendingContent, rows: Rows) -> str | None:
        """See `OfContents.made`."""
        problem = next((row["problem"] for _, row in rows if row["problem"] is not None), None)
        lines: dict[int, list[str]] = {}
        for number, (piece, row) in enumerate(rows if content.segments else ()):
            known = lines.setdefault(_segment_of(content.segments, number, piece), [])
            known += [line for line in row["lines"] if line not in known]
        if len(rows) < len(content.segments) and all(piece.start_s is None for piece, _ in rows):
            # A wide picture has a segment for each part, and is read whole.
            every = list(dict.fromkeys(line for some in lines.values() for line in some))
            lines = {segment.id: every for segment in content.segments}
        self._record(content, lines, problem)
        return None

    def failed(self, content: PendingContent, reason: str, *, lasting: bool) -> None:
        """See `OfContents.failed`."""
        if lasting:
            self._record(content, {}, reason)

    def _record(self, content: PendingContent, lines: dict[int, list[str]], problem: str | None) -> None:
        self._next.texts.append(ContentText(content.id, self._name, lines, problem))
        place = content.places[0]
        path = str(Path(self._index.root_path(place.root)) / place.path)
        self._paths[content.id] = path
        self._done += 1
        self.news.append(Progress("read", self._done, self._total, len(self.unread), path))

    def committed(self, batch: Batch, done: Committed) -> None:
        """See `Artefact.committed`."""
        self.read += sum(text.problem is None for text in batch.texts)
        self.unread += [
            Skip(self._paths[text.content_id], text.problem) for text in batch.texts if text.problem is not None
        ]
        self._paths.clear()
        super().committed(batch, done)


def _pixels(image: Image) -> npt.NDArray[Any]:
    return np.asarray(image)


def _segment_of(segments: Sequence[StoredSegment], number: int, frame: Piece) -> int:
    """The segment that a frame belongs to: by its time, else by its number.

    Frames are chosen by what small copies of them show, and those may differ a little from copies made of smaller
    pictures: there may be another number of frames now than of segments.
    """
    if frame.start_s is None or segments[0].start_s is None:
        return segments[min(number, len(segments) - 1)].id
    begun = [one.id for one in segments if one.start_s is not None and one.start_s <= frame.start_s + _SAME_TIME_S]
    return begun[-1] if begun else segments[0].id
