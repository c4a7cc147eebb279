"""Decode workers: files in, model inputs out, through a bounded queue, in whatever order they get ready."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import MediaError, MmsearchError
from mmsearch.core.shortage import shortage_of
from mmsearch.core.types import MediaInfo, Modality
from mmsearch.media.archive import ArchiveReading, shown_by
from mmsearch.media.base import DecodedSegment, DecodeOptions
from mmsearch.media.text.reader import read_sidecar
from mmsearch.models.encoders.base import Encoder
from mmsearch.pipeline.bounded_queue import BoundedQueue
from mmsearch.pipeline.plan import ArchiveWork, Work
from mmsearch.pipeline.seconds import Seconds
from mmsearch.sources import FileEntry, content_hash, hash_of, read_whole
from mmsearch.store.local.catalogue import Catalogue

_MESSAGE_BYTES = 1000
_SMALL_FILE = 32_000_000
"""Bytes: a picture up to this size is read once, for its hash and for its decoder; larger ones twice."""


@dataclass(frozen=True)
class Piece:
    """One segment of a file, ready for its space: ``array`` for the image encoder, else ``text``."""

    work: Work
    array: npt.NDArray[Any] | None
    text: str | None
    start_s: float | None
    end_s: float | None


@dataclass(frozen=True)
class Finished:
    """All pieces of a file have been handed over."""

    work: Work
    hash: bytes
    info: MediaInfo


@dataclass(frozen=True)
class Known:
    """The file's bytes have been indexed before, here or under another path."""

    work: Work
    hash: bytes
    content_id: int
    modality: Modality


@dataclass(frozen=True)
class Twin:
    """The file's bytes are being read right now under another path."""

    work: Work
    hash: bytes


@dataclass(frozen=True)
class Failed:
    """The file cannot be indexed. ``lasting``: its content is at fault, so trying again is of no use."""

    work: Work | ArchiveWork
    hash: bytes | None
    reason: str
    lasting: bool


@dataclass(frozen=True)
class ArchiveEnd:
    """All samples of an archive have been handed to the readers; their messages may still come."""

    work: ArchiveWork
    paths: frozenset[str]
    """Of its samples."""
    problem: str | None
    """What could not be read of it."""


Message = Piece | Finished | Known | Twin | Failed | ArchiveEnd


class Readers:
    """A pool of threads that read files. Threads suffice: hashing and decoding release the interpreter lock."""

    def __init__(
        self, work: Sequence[Work | ArchiveWork], catalogue: Catalogue, space_id: int, encoder: Encoder,
        options: DecodeOptions, *, threads: int, queue: BoundedQueue[Message | None],
    ) -> None:  # fmt: skip
        self._work = iter(work)
        self._catalogue = catalogue
        self._space_id = space_id
        self._encoder = encoder
        self._options = options
        self._messages = queue
        self._in_flight: set[tuple[bytes, str]] = set()
        self._lock = threading.Lock()
        self._samples: deque[tuple[Work, bytes]] = deque()
        self._open_archives = 0
        self._more = threading.Condition(self._lock)
        self._stop = threading.Event()
        self.samples = 0
        """Documents that archives turned out to hold."""
        self.waited = 0.0
        """Seconds for which nothing was ready for whoever takes the messages."""
        self.seconds = Seconds()
        self._threads = [
            threading.Thread(target=self._run, name=f"mmsearch-read-{number}", daemon=True)
            for number in range(max(1, threads if self._has_archives(work) else min(threads, len(work))))
        ]

    def __iter__(self) -> Iterator[Message]:
        """Messages of all files; ends when every file is done."""
        for thread in self._threads:
            thread.start()
        running = len(self._threads)
        while running:
            started = time.perf_counter()
            message = self._messages.get()
            self.waited += time.perf_counter() - started
            if message is None:
                running -= 1
            else:
                yield message

    def settled(self, hash_: bytes, decoding: str) -> None:
        """A content has been committed: from now on the catalogue knows it."""
        with self._lock:
            self._in_flight.discard((hash_, decoding))

    def stop(self) -> None:
        """Ends all threads after the piece at hand; what waits in the queue is lost."""
        self._stop.set()
        self._messages.close()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _run(self) -> None:
        spent = Seconds()
        while (task := self._next()) is not None:
            if isinstance(task, ArchiveWork):
                self._read_archive(task, spent)
            elif isinstance(task, Work):
                self._read(task, None, spent)
            else:
                self._read(*task, spent)
        with self._lock:
            self.seconds.include(spent)
        self._messages.put(None, 0)

    def _next(self) -> Work | ArchiveWork | tuple[Work, bytes] | None:
        """Samples first, so that few of them wait; ``None`` when nothing is left and no archive can add to it."""
        with self._more:
            while not self._stop.is_set():
                if self._samples:
                    self._more.notify_all()
                    return self._samples.popleft()
                work = next(self._work, None)
                if work is not None:
                    self._open_archives += isinstance(work, ArchiveWork)
                    return work
                if not self._open_archives:
                    return None
                self._more.wait(0.5)
        return None

    @staticmethod
    def _has_archives(work: Sequence[Work | ArchiveWork]) -> bool:
        return any(isinstance(one, ArchiveWork) for one in work)

    def _read_archive(self, archive: ArchiveWork, spent: Seconds) -> None:
        """Hands the samples to all readers; while enough of them wait, this one reads some itself."""
        below = self._catalogue.documents_below(archive.scope.root.id, archive.file.path)
        known = {document.path: document for document in below}
        reading = ArchiveReading(archive.path)
        paths: set[str] = set()
        try:
            for member in reading.members():
                path, decoder = f"{archive.file.path}/{member.name}", shown_by(member.name)
                if path in paths or decoder is None or self._stop.is_set():
                    reading.left_out += path in paths
                    continue
                paths.add(path)
                file = FileEntry(path, len(member.data), member.mtime_ns, 0)
                signature = decoder.signature(self._options)
                self._offer(Work(archive.scope, file, decoder, signature, known.get(path), member.caption, archive),
                            member.data, spent)  # fmt: skip
            problem = reading.problem() or (None if paths else "there is no picture or video in it")
            self._put(ArchiveEnd(archive, frozenset(paths), problem))
        except MediaError as error:
            self._put(Failed(archive, None, str(error), lasting=shortage_of(error) is None))
        except Exception as error:  # a bug in here or in tarfile: the archive is reported, the run goes on
            self._put(Failed(archive, None, f"it could not be read ({type(error).__name__}: {error})", lasting=False))
        finally:
            with self._more:
                self._open_archives -= 1
                self._more.notify_all()

    def _offer(self, work: Work, data: bytes, spent: Seconds) -> None:
        with self._more:
            self.samples += 1
            room = self._messages.size - sum(len(other) for _, other in self._samples)
            if len(self._samples) < 2 * len(self._threads) and len(data) <= room:
                self._samples.append((work, data))
                self._more.notify()
                return
        self._read(work, data, spent)

    def _read(self, work: Work, data: bytes | None, spent: Seconds) -> None:
        """Reads one file, or one sample whose bytes are at hand."""
        hash_ = None
        if work.file.sidecars:
            work = replace(work, caption=read_sidecar(work.path))
        try:
            with spent.of("hash"):
                data, hash_ = self._hash(work, data)
            # Taken first, looked up then: the other way round, a commit in between would let it be read twice.
            if not self._take(hash_, work.decoding):
                self._put(Twin(work, hash_))
                return
            known = self._catalogue.find_content(hash_, work.decoding, self._space_id)
            if known is None:
                self._decode(work, data, hash_, spent)
            else:
                self.settled(hash_, work.decoding)
                self._put(Known(work, hash_, *known))
        except MediaError as error:
            self._put(_failed(work, hash_, str(error), error))
        except Exception as error:  # a decoder's bug or a library's: the file is reported, the run goes on
            self._put(_failed(work, hash_, f"it could not be read ({type(error).__name__}: {error})", error))

    def _hash(self, work: Work, data: bytes | None) -> tuple[bytes | None, bytes]:
        """The bytes of the file, if the decoder need not read them again, and the content hash."""
        if data is not None:
            return data, hash_of(data)
        if work.decoder.modality == "image" and work.file.size <= _SMALL_FILE:
            return read_whole(work.path, work.file)
        return None, content_hash(work.path, work.file, self._stop.is_set)

    def _take(self, hash_: bytes, decoding: str) -> bool:
        """Whether the content is the calling thread's to read; from now on it is nobody else's."""
        with self._lock:
            if (hash_, decoding) in self._in_flight:
                return False
            self._in_flight.add((hash_, decoding))
            return True

    def _decode(self, work: Work, data: bytes | None, hash_: bytes, spent: Seconds) -> None:
        with spent.of("decode"):
            decoded = work.decoder.decode(work.path, self._options, data)
        for segment in _timed(decoded.segments, spent):
            if self._stop.is_set():
                return
            with spent.of("prepare"):
                piece = self._piece(work, segment)
            self._put(piece)
        self._put(Finished(work, hash_, decoded.final_info() if decoded.final_info else decoded.info))

    def _piece(self, work: Work, segment: DecodedSegment) -> Piece:
        array = None if segment.image is None else np.asarray(self._encoder.prepare_image(segment.image))
        return Piece(work, array, segment.text, segment.start_s, segment.end_s)

    def _put(self, message: Message) -> None:
        array = message.array if isinstance(message, Piece) else None
        self._messages.put(message, _MESSAGE_BYTES + (0 if array is None else array.nbytes))


def _failed(work: Work, hash_: bytes | None, reason: str, error: Exception) -> Failed:
    """The file's fault, which lasts, if its bytes could be read; but not where the machine lacked something, or the
    index could not be asked: then it is tried again.
    """
    short = shortage_of(error)
    if short is not None:
        reason = f"{short}: it will be tried again at the next run"
    is_ours = isinstance(error, MmsearchError) and not isinstance(error, MediaError)
    return Failed(work, hash_, reason, lasting=hash_ is not None and short is None and not is_ours)


def _timed(segments: Iterator[DecodedSegment], spent: Seconds) -> Iterator[DecodedSegment]:
    while True:
        with spent.of("decode"):
            segment = next(segments, None)
        if segment is None:
            return
        yield segment
