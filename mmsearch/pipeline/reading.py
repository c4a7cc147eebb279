"""Reading one work item: a file in, the inputs of a model out, one for each of its segments.

What is said of an item is a message; `Piece` holds what there is to compute. A content is known by its `ContentKey`,
which is the same on every machine, in every process and under every path. Neither the `Reader` nor a message needs the
index, so another process can read.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import MediaError, MmsearchError
from mmsearch.core.shortage import TRIED_AGAIN, shortage_of
from mmsearch.core.types import Beside, MediaInfo, Modality
from mmsearch.media.archive import ArchiveReading, shown_by
from mmsearch.media.base import DecodedSegment, DecodeOptions
from mmsearch.media.metadata.sidecars import read_sidecars
from mmsearch.pipeline.plan import ArchiveWork, Work
from mmsearch.sources import FileEntry, content_hash, fetched, hash_of, is_remote, names_in, read_whole
from mmsearch.store.local.commit import ContentKey

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmsearch.models.speech.base import VoicedPart

Kind = Literal["image", "text", "sound"]
KnownContent = tuple[int, Modality]
"""The id and modality of a content that need not be read."""
_SMALL_FILE = 32_000_000
"""Bytes: a picture up to this size is read once, for its hash and for its decoder; larger ones twice."""


class Seconds(defaultdict[str, float]):
    """Stage → busy seconds. One object for each thread; they are added up at the end."""

    def __init__(self) -> None:
        super().__init__(float)

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Adds the time that the block takes to a stage, also when it raises."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self[stage] += time.perf_counter() - started

    def include(self, other: Mapping[str, float]) -> None:
        """Adds the stages of another object."""
        for stage, seconds in other.items():
            self[stage] += seconds


@dataclass(slots=True)
class Piece:
    """One segment of an item. ``input`` goes into a model, and is let go of once it has been there."""

    item: ContentKey
    ordinal: int
    kind: Kind
    input: npt.NDArray[Any] | str | VoicedPart | None
    start_s: float | None = None
    end_s: float | None = None
    text: str | None = None
    about: Any = None
    """What else an artefact must know of it."""


@dataclass(frozen=True)
class Finished:
    """Of an item, so many ``pieces`` have been handed over, and no more will come. ``info`` describes the file."""

    item: ContentKey
    pieces: int
    info: MediaInfo
    work: Work | None = None
    """`None`: nothing had to be read."""
    about: Any = None


@dataclass(frozen=True)
class Known:
    """The file's bytes need not be read: they are those of a content of the index. ``item`` is ``None`` where not even
    their hash was needed to know that.
    """

    item: ContentKey | None
    work: Work
    content_id: int
    modality: Modality


@dataclass(frozen=True)
class Twin:
    """The file's bytes are being read right now under another path."""

    item: ContentKey
    work: Work


@dataclass(frozen=True)
class Failed:
    """The file cannot be read. ``lasting``: its content is at fault, so trying again is of no use.

    ``item`` is ``None`` where it failed before its bytes were known.
    """

    item: ContentKey | None
    work: Work | ArchiveWork
    reason: str
    lasting: bool


@dataclass(frozen=True)
class ArchiveEnd:
    """All samples of an archive have been handed out to be read; their messages may still come."""

    work: ArchiveWork
    samples: frozenset[str]
    """Their paths."""
    problem: str | None
    """What could not be read of it."""


Message = Piece | Finished | Known | Twin | Failed | ArchiveEnd
Look = Callable[[ContentKey], KnownContent | Literal["twin"] | None]
"""What is known of a content before it is decoded; ``None``: it is to be read."""


@dataclass(frozen=True)
class Reader:
    """Reads items as one model wants them: ``prepare`` makes its input of an upright RGB image.

    Holds no state, so one object serves all threads; it can be pickled if ``prepare`` and ``options`` can.
    """

    prepare: Callable[[Image], npt.NDArray[Any]]
    options: DecodeOptions

    def read(
        self,
        work: Work,
        data: bytes | None = None,
        *,
        look: Look = lambda _: None,
        stopped: Callable[[], bool] = lambda: False,
        seconds: Seconds | None = None,
    ) -> Iterator[Message]:
        """All messages of one file, or of one sample whose bytes are ``data``. Never raises: what goes wrong is
        `Failed`. Ends without a last message once ``stopped`` says so.
        """
        spent = Seconds() if seconds is None else seconds
        if data is None and is_remote(work.scope.folder):
            yield from self._read_copy(work, look, stopped, spent)
        else:
            yield from self._read(work, data, look, stopped, spent)

    def _read_copy(self, work: Work, look: Look, stopped: Callable[[], bool], spent: Seconds) -> Iterator[Message]:
        """Of a file that lies in a store: read is a copy of it, with what lies beside it, for as long as that takes."""
        names = names_in(work.file.sidecars)
        try:
            if work.file.size > work.decoder.max_bytes:
                work.decoder.check_size(work.path, work.file.size)
            with ExitStack() as kept:
                with spent.of("fetch"):
                    copy = fetched(work.path, work.file, names, whole=work.content is None)
                    place = kept.enter_context(copy)
                local = replace(
                    work,
                    scope=replace(work.scope, folder=place.parent, below=""),
                    file=work.file._replace(path=place.name),
                )
                for message in self._read(local, None, look, stopped, spent):
                    if isinstance(message, Piece):
                        yield message
                    else:
                        assert isinstance(message.work, Work)
                        yield replace(message, work=replace(work, beside=message.work.beside))
        except Exception as error:
            yield _failed(None, work, error)

    def _read(
        self, work: Work, data: bytes | None, look: Look, stopped: Callable[[], bool], spent: Seconds
    ) -> Iterator[Message]:
        item = None
        try:
            if work.file.sidecars:
                work = replace(work, beside=read_sidecars(work.path, names_in(work.file.sidecars)))
            if work.content is not None and data is None:
                yield Known(None, work, *work.content)
                return
            with spent.of("hash"):
                data, hash_ = (data, work.hash) if work.hash is not None else _hash(work, data, stopped)
            item = (hash_, work.decoding)
            if (
                not work.file.size
            ):  # also what the system makes up as it is read: it says of no such file how long it is
                raise MediaError("empty file")
            known = look(item)
            if known is None:
                yield from self._decode(item, work, data, stopped, spent)
            else:
                yield Twin(item, work) if known == "twin" else Known(item, work, *known)
        except Exception as error:
            yield _failed(item, work, error)

    def open_archive(
        self, archive: ArchiveWork, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[Work, bytes] | ArchiveEnd | Failed]:
        """The samples of an archive, each with its bytes, for `read`; last, that this was all. Never raises."""
        reading = ArchiveReading(archive.path)
        paths: set[str] = set()
        try:
            for member in reading.members():
                path, decoder = f"{archive.file.path}/{member.name}", shown_by(member.name)
                if path in paths or decoder is None or stopped():
                    reading.left_out += path in paths
                    continue
                paths.add(path)
                file = FileEntry(path, len(member.data), member.mtime_ns, 0)
                signature = decoder.signature(self.options)
                beside = Beside(member.caption)
                yield Work(archive.scope, file, decoder, signature, None, beside, archive), member.data
            problem = reading.problem() or (None if paths else "there is no picture or video in it")
            yield ArchiveEnd(archive, frozenset(paths), problem)
        except Exception as error:
            yield _failed(None, archive, error)

    def _decode(
        self, item: ContentKey, work: Work, data: bytes | None, stopped: Callable[[], bool], spent: Seconds
    ) -> Iterator[Message]:
        with spent.of("decode"):
            decoded = work.decoder.decode(work.path, self.options, data)
        pieces = 0
        for segment in _timed(decoded.segments, spent):
            if stopped():
                return
            with spent.of("prepare"):
                piece = self._piece(item, pieces, segment)
            yield piece
            pieces += 1
        yield Finished(item, pieces, decoded.final_info() if decoded.final_info else decoded.info, work)

    def _piece(self, item: ContentKey, ordinal: int, segment: DecodedSegment) -> Piece:
        described = (segment.start_s, segment.end_s, segment.text)
        if segment.image is None:
            return Piece(item, ordinal, "text", segment.text or "", *described)
        return Piece(item, ordinal, "image", np.asarray(self.prepare(segment.image)), *described)


def _failed(item: ContentKey | None, work: Work | ArchiveWork, error: Exception) -> Failed:
    """It is the file's fault, which lasts, once its bytes could be read, and an archive's where it is none; but not
    where the machine lacked something, or the index could not be read: then it is tried again.

    A bug of ours, of a decoder or of a library is reported in the same way, and the run goes on.
    """
    is_media = isinstance(error, MediaError)
    reason = str(error) if is_media else f"it could not be read ({type(error).__name__}: {error})"
    short = shortage_of(error)
    if short is not None:
        reason = f"{short}: {TRIED_AGAIN}"
    is_ours = isinstance(error, MmsearchError) and not is_media
    is_fault = item is not None or (is_media and isinstance(work, ArchiveWork))
    return Failed(item, work, reason, lasting=is_fault and short is None and not is_ours)


def _hash(work: Work, data: bytes | None, stopped: Callable[[], bool]) -> tuple[bytes | None, bytes]:
    """The bytes of the file, if the decoder need not read them again, and the content hash."""
    if data is not None:
        return data, hash_of(data)
    work.decoder.check_size(work.path, work.file.size)
    if work.decoder.modality == "image" and work.file.size <= _SMALL_FILE:
        return read_whole(work.path, work.file)
    return None, content_hash(work.path, work.file, stopped)


def _timed(segments: Iterator[DecodedSegment], spent: Seconds) -> Iterator[DecodedSegment]:
    while True:
        with spent.of("decode"):
            segment = next(segments, None)
        if segment is None:
            return
        yield segment
