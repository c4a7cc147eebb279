"""Decode workers: files in, model inputs out, through a bounded queue, in whatever order they get ready."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.catalogue import Catalogue
from mmsearch.decoders.base import DecodedSegment, DecodeOptions
from mmsearch.encoders.base import Encoder
from mmsearch.errors import MediaError
from mmsearch.files import content_hash
from mmsearch.ingest.plan import Work
from mmsearch.ingest.seconds import Seconds
from mmsearch.types import MediaInfo, Modality


@dataclass(frozen=True)
class Piece:
    """One segment of a file, ready for its tower: ``array`` for the image tower, else ``text``."""

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

    work: Work
    hash: bytes | None
    reason: str
    lasting: bool


Message = Piece | Finished | Known | Twin | Failed


class Readers:
    """A pool of threads that read files. Threads suffice: hashing and decoding release the interpreter lock."""

    def __init__(
        self, work: Sequence[Work], catalogue: Catalogue, tower_id: int, encoder: Encoder, options: DecodeOptions,
        *, threads: int, look_ahead: int,
    ) -> None:  # fmt: skip
        self._work = iter(work)
        self._catalogue = catalogue
        self._tower_id = tower_id
        self._encoder = encoder
        self._options = options
        self._messages: queue.Queue[Message | None] = queue.Queue(maxsize=look_ahead)
        self._in_flight: set[tuple[bytes, str]] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.seconds = Seconds()
        self._threads = [
            threading.Thread(target=self._run, name=f"mmsearch-read-{number}", daemon=True)
            for number in range(max(1, min(threads, len(work))))
        ]

    def __iter__(self) -> Iterator[Message]:
        """Messages of all files; ends when every file is done."""
        for thread in self._threads:
            thread.start()
        running = len(self._threads)
        while running:
            message = self._messages.get()
            if message is None:
                running -= 1
            else:
                yield message

    def settled(self, hash_: bytes, decoding: str) -> None:
        """A content has been committed: from now on the catalogue knows it."""
        with self._lock:
            self._in_flight.discard((hash_, decoding))

    def stop(self) -> None:
        """Ends all threads after the piece at hand and throws away what waits in the queue."""
        self._stop.set()
        while any(thread.is_alive() for thread in self._threads):
            try:
                self._messages.get(timeout=0.05)
            except queue.Empty:
                continue

    def _run(self) -> None:
        spent = Seconds()
        while not self._stop.is_set():
            with self._lock:
                work = next(self._work, None)
            if work is None:
                break
            self._read(work, spent)
        with self._lock:
            self.seconds.include(spent)
        self._messages.put(None)

    def _read(self, work: Work, spent: Seconds) -> None:
        hash_ = None
        try:
            with spent.of("hash"):
                hash_ = content_hash(work.path, work.file, self._stop.is_set)
            # Taken first, looked up then: the other way round, a commit in between would let it be read twice.
            if not self._take(hash_, work.decoding):
                self._put(Twin(work, hash_))
                return
            known = self._catalogue.find_content(hash_, work.decoding, self._tower_id)
            if known is None:
                self._decode(work, hash_, spent)
            else:
                self.settled(hash_, work.decoding)
                self._put(Known(work, hash_, *known))
        except MediaError as error:
            self._put(Failed(work, hash_, str(error), lasting=hash_ is not None))
        except Exception as error:  # a decoder's bug or a library's: the file is reported, the run goes on
            reason = f"it could not be read ({type(error).__name__}: {error})"
            self._put(Failed(work, hash_, reason, lasting=hash_ is not None))

    def _take(self, hash_: bytes, decoding: str) -> bool:
        """Whether the content is the calling thread's to read; from now on it is nobody else's."""
        with self._lock:
            if (hash_, decoding) in self._in_flight:
                return False
            self._in_flight.add((hash_, decoding))
            return True

    def _decode(self, work: Work, hash_: bytes, spent: Seconds) -> None:
        with spent.of("decode"):
            decoded = work.decoder.decode(work.path, self._options)
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
        while not self._stop.is_set():
            try:
                self._messages.put(message, timeout=0.5)
                return
            except queue.Full:
                continue


def _timed(segments: Iterator[DecodedSegment], spent: Seconds) -> Iterator[DecodedSegment]:
    while True:
        with spent.of("decode"):
            segment = next(segments, None)
        if segment is None:
            return
        yield segment
