"""What runs a pipeline: work items in, what was read and computed of them out, in whatever order it gets ready."""

from __future__ import annotations

import signal
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from mmsearch.pipeline.compute import BatchFunction, Output
from mmsearch.pipeline.plan import ArchiveWork, Work
from mmsearch.pipeline.reading import (
    ArchiveEnd,
    Failed,
    Finished,
    Kind,
    Known,
    KnownContent,
    Message,
    Piece,
    Reader,
    Seconds,
    Twin,
)
from mmsearch.store.local.commit import ContentKey

T = TypeVar("T")
_MESSAGE_BYTES = 1000
PATIENCE_S = 30.0
"""How long a run that ends waits for its readers: longer than the slowest picture takes."""


@dataclass(frozen=True)
class Round:
    """Items to be read with one ``reader``, and ``pieces`` that stand in the index, so that nothing is read for them.

    ``known`` says of a content whether it need not be decoded; it is called from several threads.
    """

    work: Sequence[Work | ArchiveWork] = ()
    reader: Reader | None = None
    known: Callable[[ContentKey], KnownContent | None] = lambda _: None
    pieces: Sequence[Piece | Finished] = ()


@dataclass(frozen=True)
class Computed:
    """Pieces, without their inputs, and what was made of each."""

    rows: Sequence[tuple[Piece, Output]]


Result = Computed | Finished | Known | Twin | Failed | ArchiveEnd


class Executor(ABC):
    """An engine that reads and computes. It is handed items, a reader and batch functions, and knows of no index.

    A content that several items hold is handed over once, the other items as a `Twin` each: `settled` says from when on
    ``known`` knows it.
    """

    def __init__(self) -> None:
        self.seconds = Seconds()
        """Busy seconds of each stage; ``wait``: those for which nothing was ready for the batch functions."""

    @abstractmethod
    def run(self, part: Round, functions: Mapping[Kind, BatchFunction], take: Callable[[Result], None]) -> None:
        """Reads all of a round and computes every `Piece` with the function of its kind; ``take`` gets each result, in
        the calling thread. Of an item, `Finished` and its computed pieces may come in any order; the samples of an
        archive and its `ArchiveEnd` too.

        An interrupt (Ctrl-C) leaves this function once what was computed has been taken; what waits is lost.
        """

    def settled(self, item: ContentKey) -> None:  # noqa: B027  (not every engine remembers)
        """A content has been committed, from now on ``known`` knows it."""


class ThreadExecutor(Executor):
    """Reads in threads and computes in the calling one. Threads suffice: hashing and decoding release the interpreter
    lock.

    ``memory_mb``: megabytes that inputs may take while they wait to be computed, and as many again for samples of
    archives that wait to be read. ``look_ahead``: so many inputs may wait at least, if they take less than that.
    """

    def __init__(self, threads: int, memory_mb: float, look_ahead: int = 64) -> None:
        super().__init__()
        self._count, self._size, self._look_ahead = threads, int(1e6 * memory_mb), look_ahead
        self._in_flight: set[ContentKey] = set()
        self._lock = threading.Lock()

    def run(self, part: Round, functions: Mapping[Kind, BatchFunction], take: Callable[[Result], None]) -> None:
        """See `Executor.run`."""
        batches: dict[Kind, list[Piece]] = {kind: [] for kind in functions}
        largest = max(function.batch_size for function in functions.values())
        with closing(self._messages(part, largest)) as messages:  # the threads end here, whatever happens
            for message in messages:
                if not isinstance(message, Piece):
                    take(message)
                    continue
                batch = batches[message.kind]
                batch.append(message)
                if len(batch) >= functions[message.kind].batch_size:
                    batches[message.kind] = []
                    self._compute(functions[message.kind], batch, take)
        for kind, batch in batches.items():
            if batch:
                self._compute(functions[kind], batch, take)

    def settled(self, item: ContentKey) -> None:
        """See `Executor.settled`."""
        with self._lock:
            self._in_flight.discard(item)

    def _compute(self, function: BatchFunction, batch: Sequence[Piece], take: Callable[[Result], None]) -> None:
        with interrupts_held():  # a Ctrl-C finds the batch done, not its work lost
            with self.seconds.of("encode"):
                outputs = function([piece.input for piece in batch])
            for piece in batch:
                piece.input = None
            take(Computed(list(zip(batch, outputs, strict=True))))

    def _messages(self, part: Round, batch_size: int) -> Generator[Message, None, None]:
        yield from part.pieces
        if not part.work or part.reader is None:
            return
        self._in_flight.clear()  # what an earlier round left there failed, or was interrupted
        queue: BoundedQueue[Message | None] = BoundedQueue(items=max(self._look_ahead, 4 * batch_size), size=self._size)
        threads = _ReaderThreads(part.work, part.reader, self._looker(part), self._count, queue)
        try:
            yield from threads
        finally:
            threads.stop()
            self.seconds.include(threads.seconds)

    def _looker(self, part: Round) -> Callable[[ContentKey], KnownContent | Literal["twin"] | None]:
        def look(item: ContentKey) -> KnownContent | Literal["twin"] | None:
            # Taken first, looked up then: the other way round, a commit in between would let it be read twice.
            with self._lock:
                if item in self._in_flight:
                    return "twin"
                self._in_flight.add(item)
            known = part.known(item)
            if known is not None:
                self.settled(item)
            return known

        return look


class _ReaderThreads:
    """The threads of one round. Samples of archives are handed from the thread that opened the archive to all."""

    def __init__(
        self, work: Sequence[Work | ArchiveWork], reader: Reader,
        look: Callable[[ContentKey], KnownContent | Literal["twin"] | None], threads: int,
        queue: BoundedQueue[Message | None],
    ) -> None:  # fmt: skip
        self._work = iter(work)
        self._reader = reader
        self._look = look
        self._queue = queue
        self._samples: deque[tuple[Work, bytes]] = deque()
        self._open_archives = 0
        self._more = threading.Condition()
        self._stop = threading.Event()
        self.seconds = Seconds()
        has_archives = any(isinstance(item, ArchiveWork) for item in work)
        self._threads = [
            threading.Thread(target=self._run, name=f"mmsearch-read-{number}", daemon=True)
            for number in range(max(1, threads if has_archives else min(threads, len(work))))
        ]

    def __iter__(self) -> Iterator[Message]:
        """Messages of all items; ends when every item is done."""
        for thread in self._threads:
            thread.start()
        running = len(self._threads)
        waited = 0.0
        try:
            while running:
                started = time.perf_counter()
                message = self._queue.get()
                waited += time.perf_counter() - started
                if message is None:
                    running -= 1
                else:
                    yield message
        finally:
            with self._more:
                self.seconds["wait"] += waited

    def stop(self) -> None:
        """Ends all threads after the piece at hand; what waits in the queue is lost. One that a disk does not answer
        is left behind after a while: it holds nothing that anybody waits for.
        """
        self._stop.set()
        self._queue.close()
        until = time.monotonic() + PATIENCE_S
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        spent = Seconds()
        while (item := self._next()) is not None:
            if isinstance(item, ArchiveWork):
                self._open(item, spent)
            elif isinstance(item, Work):
                self._read(item, None, spent)
            else:
                self._read(*item, spent)
        with self._more:
            self.seconds.include(spent)
        self._queue.put(None, 0)

    def _next(self) -> Work | ArchiveWork | tuple[Work, bytes] | None:
        """Samples first, so that few of them wait; ``None`` when nothing is left and no archive can add to it."""
        with self._more:
            while not self._stop.is_set():
                if self._samples:
                    self._more.notify_all()
                    return self._samples.popleft()
                item = next(self._work, None)
                if item is not None:
                    self._open_archives += isinstance(item, ArchiveWork)
                    return item
                if not self._open_archives:
                    return None
                self._more.wait(0.5)
        return None

    def _open(self, archive: ArchiveWork, spent: Seconds) -> None:
        """Hands the samples to all threads; while enough of them wait, this one reads some itself."""
        for sample in self._reader.open_archive(archive, self._stop.is_set):
            if not isinstance(sample, tuple):
                self._put(sample)
            elif not self._offer(*sample):
                self._read(*sample, spent)
        with self._more:
            self._open_archives -= 1
            self._more.notify_all()

    def _offer(self, work: Work, data: bytes) -> bool:
        with self._more:
            room = self._queue.size - sum(len(other) for _, other in self._samples)
            if len(self._samples) >= 2 * len(self._threads) or len(data) > room:
                return False
            self._samples.append((work, data))
            self._more.notify()
            return True

    def _read(self, work: Work, data: bytes | None, spent: Seconds) -> None:
        for message in self._reader.read(work, data, look=self._look, stopped=self._stop.is_set, seconds=spent):
            self._put(message)

    def _put(self, message: Message) -> None:
        array: Any = message.input if isinstance(message, Piece) else None  # or a VoicedPart
        self._queue.put(message, _MESSAGE_BYTES + (0 if array is None or isinstance(array, str) else array.nbytes))


class BoundedQueue(Generic[T]):
    """Between readers and models: first in, first out, for any number of threads on both sides, and bounded in bytes,
    so that looking ahead never costs more memory.

    Holds at most ``items`` things of at most ``size`` bytes together; one that is larger than that alone is taken
    when nothing else waits, so that nothing is stuck.
    """

    def __init__(self, *, items: int, size: int) -> None:
        self._items, self.size = items, size
        self._waiting: deque[tuple[T, int]] = deque()
        self._held = 0
        self._changed = threading.Condition()
        self._closed = False

    def put(self, thing: T, size: int) -> bool:
        """Waits for room; ``False`` when the queue was closed meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits(size))
            if self._closed:
                return False
            self._waiting.append((thing, size))
            self._held += size
            self._changed.notify_all()
            return True

    def get(self) -> T:
        """Waits for something."""
        with self._changed:
            while not self._waiting:
                self._changed.wait(0.5)  # so that an interrupt comes through
            thing, size = self._waiting.popleft()
            self._held -= size
            self._changed.notify_all()
            return thing

    def close(self) -> None:
        """Nothing can be put in any more; who waits for room is let go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return not self._waiting or (len(self._waiting) < self._items and self._held + size <= self.size)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Lets the block finish before a Ctrl-C is felt.

    A commit is a transaction and the book-keeping that follows it; an interrupt between both would commit the
    same files a second time. Only the main thread is interrupted by Ctrl-C, so elsewhere nothing is to be done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []

    def hold(number: int, frame: Any) -> None:
        waiting.append(number)

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if waiting:
        raise KeyboardInterrupt
