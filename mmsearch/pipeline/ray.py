"""Reading and encoding on Ray: actors that each run the pipeline of this process, the results to whoever commits.

Plain actors and not Ray Data: files are independent and results are small (a vector and some numbers), so nothing is
shuffled, and what one needs of an engine is that a file that ends its process is found by name and costs nobody else's
work. An actor that dies is replaced; what it held is handed out again one by one, and who dies of the same file
`MOST_DEATHS` times in a row names it.

What is committed stays committed by the process that asked: the store itself says what a repeated command has to do.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from mmsearch.core.errors import EncoderError, EncoderMismatch, MmsearchError, ResourceShortage, UsageError
from mmsearch.core.extras import install_hint
from mmsearch.core.shortage import TRIED_AGAIN
from mmsearch.core.system import usable_cores
from mmsearch.core.types import EncoderSpec
from mmsearch.pipeline.compute import BatchFunction, ImageVectors, Output, TextVectors
from mmsearch.pipeline.executor import Computed, Executor, Result, Round
from mmsearch.pipeline.file_batches import FileBatches, Settings, options_of
from mmsearch.pipeline.plan import ArchiveWork, Work
from mmsearch.pipeline.reading import ArchiveEnd, Failed, Finished, Kind, Known, Twin
from mmsearch.store.local.commit import ContentKey

if TYPE_CHECKING:
    from mmsearch.models.encoders.base import Encoder

BATCH = 64
"""Files that are handed to an actor at a time."""
AHEAD = 2
"""Batches that an actor has: one that it works on and one that waits, so that it never does."""
LOW_MEMORY = "running low on memory"
"""What Ray says of an actor that it has ended because its machine had too little."""
MOST_DEATHS = 3
"""Of processes that read one file and nothing else: then the file is said to end them."""
FREE_S = 2.0
"""How long a cluster without a free CPU is asked again."""
PLACING_S = 6.0
"""A free cluster places an actor within a fraction of that."""
STARTING_S = 300.0
"""An actor that is placed imports libraries and reads weights first."""
LOCAL_STORE_BYTES = 200_000_000
"""Ray's shared memory on this machine: results are small."""
_LOG = logging.getLogger("mmsearch")


class _Actor:
    """Runs in a process of its own."""

    def __init__(self, settings: Settings, encoders: Sequence[Any] = ()) -> None:
        functions = {kind: _Elsewhere(kind, encoders) for kind in ("image", "text")} if encoders else None
        self._batches = FileBatches(settings, functions)  # type: ignore[arg-type]

    def ready(self) -> EncoderSpec:
        return self._batches.spec

    def run(self, items: Sequence[Work | ArchiveWork]) -> tuple[list[Result], dict[str, float]]:
        return self._batches(items)


class _EncoderActor:
    """Has a GPU to itself, and encodes what many others have read."""

    def __init__(self, open_: Callable[[], Encoder]) -> None:
        encoder = open_()
        self._functions: dict[str, BatchFunction] = {"image": ImageVectors(encoder), "text": TextVectors(encoder)}

    def batch_size(self) -> int:
        return self._functions["image"].batch_size

    def encode(self, kind: str, inputs: Sequence[Any]) -> Sequence[Output]:
        return self._functions[kind](inputs)


class _Elsewhere(BatchFunction):
    """Computed by one of the actors that have a GPU; which one goes round."""

    def __init__(self, kind: Kind, encoders: Sequence[Any]) -> None:
        import ray

        self._kind, self._encoders, self._next = kind, encoders, id(self) % len(encoders)
        self.batch_size = int(ray.get(encoders[0].batch_size.remote()))

    def __call__(self, inputs: Sequence[Any]) -> Sequence[Output]:
        import ray

        self._next = (self._next + 1) % len(self._encoders)
        outputs: Sequence[Output] = ray.get(self._encoders[self._next].encode.remote(self._kind, list(inputs)))
        return outputs


@dataclass
class _Job:
    """Items that one actor gets together. ``deaths``: of processes that had this and nothing else."""

    items: list[Work | ArchiveWork]
    deaths: int = 0


@dataclass(eq=False)
class _Worker:
    """An actor, seen from here. ``jobs``: what it has, in the order in which it does it."""

    handle: Any
    place: Any
    is_ready: bool = False
    jobs: deque[tuple[Any, _Job]] = field(default_factory=deque)


class RayExecutor(Executor):
    """Runs on the cluster at ``address``: ``ray`` starts one on this machine for as long as a round takes, any other
    address is Ray's own (``ray://HEAD:10001``, ``auto``).

    ``open_encoder`` opens in each actor the encoder of which ``spec`` is known. ``actors``: how many at most; by
    default one for each CPU that is free. Where the cluster has GPUs that are free, encoders get one each, and the
    others only read.
    """

    def __init__(
        self, address: str, open_encoder: Callable[[], Encoder], spec: EncoderSpec, *, actors: int | None = None,
        memory_mb: float = 256.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self._address = None if address == "ray" else address
        self._open, self._spec = open_encoder, spec
        self._most, self._memory_mb = actors, memory_mb
        self._in_flight: set[ContentKey] = set()

    def settled(self, item: ContentKey) -> None:
        """See `Executor.settled`."""
        self._in_flight.discard(item)

    def run(self, part: Round, functions: Mapping[Kind, BatchFunction], take: Callable[[Result], None]) -> None:
        """See `Executor.run`. ``functions`` say what kinds there are; actors make their own of the encoder.

        Raises:
            UsageError: Ray is not installed.
            ResourceShortage: there is no such cluster, nothing is free there, or all of it was lost.
            EncoderError, EncoderMismatch: the encoder cannot be opened there, or is another one.
        """
        if part.pieces:
            raise NotImplementedError("what stands in the index is computed where the index is")
        if not part.work or part.reader is None:
            return
        self._in_flight.clear()
        settings = Settings(self._open, options_of(part.reader.options), self._memory_mb)
        with _connected(self._address):
            pool = _Pool(settings, self._spec, self._most)
            try:
                for results, seconds in pool.results(part.work):
                    self.seconds.include(seconds)
                    self._hand_over(results, part, pool.originals, take)
            finally:
                pool.close()

    def _hand_over(
        self, results: Sequence[Result], part: Round, originals: Mapping[tuple[int, str], Work],
        take: Callable[[Result], None],
    ) -> None:  # fmt: skip
        """What an actor made of contents that are known here already is let go: it knows of no index."""
        verdicts: dict[ContentKey, Known | Twin | None] = {}
        for result in results:
            if isinstance(result, Finished):
                assert result.work is not None
                work = _original(result.work, originals)
                known = part.known(result.item)
                if known is not None:
                    verdicts[result.item] = Known(result.item, work, *known)
                else:
                    verdicts[result.item] = Twin(result.item, work) if result.item in self._in_flight else None
                    self._in_flight.add(result.item)
        for result in results:
            if isinstance(result, Computed):
                if rows := [row for row in result.rows if row[0].item in verdicts and verdicts[row[0].item] is None]:
                    take(Computed(rows))
            elif isinstance(result, Finished):
                assert result.work is not None
                take(verdicts[result.item] or replace(result, work=_original(result.work, originals)))
            elif isinstance(result.work, Work):
                take(replace(result, work=_original(result.work, originals)))
            else:
                take(result)


def _original(work: Work, originals: Mapping[tuple[int, str], Work]) -> Work:
    """What was sent went without what is known of the file."""
    own = originals.get((work.scope.root.id, work.file.path))
    return work if own is None else replace(own, beside=work.beside)


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Ray while the block lasts; one that runs already in this process stays."""
    try:
        import ray
    except ImportError as error:
        raise UsageError(f"--engine ray needs Ray: {install_hint('ray')}") from error
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # a cluster of our own needs no advice
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address is None:
            ray.init("local", num_cpus=usable_cores(), include_dashboard=False, configure_logging=False,
                     object_store_memory=LOCAL_STORE_BYTES, **quiet)  # fmt: skip
        else:
            ray.init(address, **quiet)
    except Exception as error:  # of many kinds, ConnectionError among them
        where = "on this machine" if address is None else f"at {address}"
        raise ResourceShortage(f"there is no Ray cluster {where} to be had ({_line(error)})") from error
    with _unheard():
        try:
            yield
        finally:
            ray.shutdown()  # waits for the thread that prints


@contextmanager
def _unheard() -> Iterator[None]:
    """Without what Ray prints of processes that died: it goes to standard output, where results belong, whatever
    `ray.init` is told, and Ray has no public switch for it. What it means for files is in the report.
    """
    from ray._private import worker

    before = worker._worker_logs_enabled
    worker._worker_logs_enabled = False
    try:
        yield
    finally:
        worker._worker_logs_enabled = before


class _Pool:
    """The actors of one round, and who has what. ``originals``: what was sent in another form, by root and path."""

    def __init__(self, settings: Settings, spec: EncoderSpec, most: int | None) -> None:
        import ray

        self._ray: Any = ray
        self._settings, self._spec = settings, spec
        self.originals: dict[tuple[int, str], Work] = {}
        self._workers: list[_Worker] = []
        self._encoders: list[_Worker] = []
        self._starting: dict[Any, _Worker] = {}
        self._failed_starts = 0
        free = self._free()
        for _ in range(int(free.get("GPU", 0))):
            place = self._placed({"GPU": 1.0, "CPU": 0.1})
            if place is None:
                break
            self._encoders.append(
                _Worker(self._made(_EncoderActor, place, (settings.open,), gpus=1.0, cpus=0.1), place)
            )
        for _ in range(min(most or 10**6, int(free.get("CPU", 0)))):
            place = self._placed({"CPU": 1.0})
            if place is None:
                break
            self._start(place)
        if not self._workers:
            total = self._ray.cluster_resources()
            self.close()
            raise ResourceShortage(
                f"no CPU of the Ray cluster is free to index with: {free.get('CPU', 0):g} of {total.get('CPU', 0):g} "
                "are, and none of them on one machine within a few seconds; let other jobs end, or add machines"
            )

    def _free(self) -> dict[str, float]:
        """What nobody has; asked again for a moment, as Ray hears late of what was given back."""
        until = time.monotonic() + FREE_S
        while True:
            free: dict[str, float] = self._ray.available_resources()
            if free.get("CPU", 0) >= 1 or time.monotonic() > until:
                return free
            time.sleep(0.2)

    def _placed(self, resources: Mapping[str, float]) -> Any:
        """What is reserved for an actor; ``None`` where no machine has so much. Without it, Ray would wait for ever."""
        from ray.util.placement_group import placement_group, remove_placement_group

        place = placement_group([dict(resources)])
        if place.wait(timeout_seconds=PLACING_S):
            return place
        remove_placement_group(place)
        return None

    def _made(self, kind: type, place: Any, arguments: tuple[Any, ...], *, cpus: float = 1.0, gpus: float = 0.0) -> Any:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        strategy = PlacementGroupSchedulingStrategy(place)
        again = {"max_restarts": MOST_DEATHS, "max_task_retries": MOST_DEATHS} if gpus else {"max_restarts": 0}
        actor: Any = self._ray.remote(kind).options(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=strategy, **again)
        return actor.remote(*arguments)

    def _start(self, place: Any) -> None:
        encoders = [one.handle for one in self._encoders]
        worker = _Worker(self._made(_Actor, place, (self._settings, encoders)), place)
        self._workers.append(worker)
        self._starting[worker.handle.ready.remote()] = worker

    def close(self) -> None:
        """Gives everything back."""
        from ray.util.placement_group import remove_placement_group

        for worker in (*self._workers, *self._encoders):
            with suppress(Exception):  # it is gone already
                self._ray.kill(worker.handle)
            with suppress(Exception):
                remove_placement_group(worker.place)
        self._workers, self._encoders = [], []

    # Handing out

    def results(self, work: Sequence[Work | ArchiveWork]) -> Iterator[tuple[list[Result], dict[str, float]]]:
        """What became of all items, in whatever order it gets ready."""
        fresh = self._jobs(work)
        again: deque[_Job] = deque()
        deaths = 0
        heard = time.monotonic()
        while True:
            self._hand_out(fresh, again)
            pending = {ref: worker for worker in self._workers for ref, _ in worker.jobs}
            if not pending and not again and (first := next(fresh, None)) is None:
                return
            if not pending and not again and first is not None:
                again.append(first)
            waiting = [*pending, *self._starting]
            done, _ = self._ray.wait(waiting, num_returns=1, timeout=1.0) if waiting else ([], [])
            if not done:
                self._check_patience(heard)
                continue
            heard = time.monotonic()
            for ref in done:
                if ref in self._starting:
                    self._started(ref)
                    continue
                worker = pending[ref]
                job = next(job for one, job in worker.jobs if one == ref)
                try:
                    made = self._ray.get(ref)
                except self._ray.exceptions.RayTaskError as error:  # it raised, the process lives on
                    worker.jobs.remove((ref, job))
                    if (
                        given_up := self._again(job, again, f"{_line(error)}: {TRIED_AGAIN}", lasting=False)
                    ) is not None:
                        yield [given_up], {}
                except self._ray.exceptions.RayError as error:
                    deaths += 1
                    for given_up in self._buried(worker, again, error):
                        deaths = 0
                        yield [given_up], {}
                    if deaths > MOST_DEATHS * (len(self._workers) + 1):
                        raise ResourceShortage(
                            f"{deaths} processes of the Ray cluster ended one after another ({_line(error)}): what was "
                            "complete is kept; look at its logs, and run the same command again"
                        ) from error
                else:
                    worker.jobs.remove((ref, job))
                    deaths = 0
                    yield made

    def _jobs(self, work: Sequence[Work | ArchiveWork]) -> Iterator[_Job]:
        """Batches; an archive is one of its own. What an actor has no use for stays here."""
        files = iter([item for item in work if isinstance(item, Work)])
        for item in work:
            if isinstance(item, ArchiveWork):
                yield _Job([item])
        while batch := list(islice(files, BATCH)):
            sent: list[Work | ArchiveWork] = []
            for item in batch:
                self.originals[item.scope.root.id, item.file.path] = item
                sent.append(replace(item, previous=None))
            yield _Job(sent)

    def _hand_out(self, fresh: Iterator[_Job], again: deque[_Job]) -> None:
        """Suspects go to an actor that has nothing else, so that its death tells which one it was."""
        for worker in self._workers:
            if not worker.is_ready:
                continue
            if again:
                if not worker.jobs:
                    self._send(worker, again.popleft())
                continue
            while len(worker.jobs) < AHEAD and (job := next(fresh, None)) is not None:
                self._send(worker, job)

    def _send(self, worker: _Worker, job: _Job) -> None:
        worker.jobs.append((worker.handle.run.remote(job.items), job))

    # What goes wrong

    def _started(self, ref: Any) -> None:
        worker = self._starting.pop(ref)
        try:
            spec = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._failed_starts += 1
            cause = getattr(error, "cause", None)
            if isinstance(cause, MmsearchError) or self._failed_starts >= MOST_DEATHS:
                raise EncoderError(f"no process of the Ray cluster can be started: {_line(cause or error)}") from error
            self._replace(worker)
            return
        if spec != self._spec:
            raise EncoderMismatch(
                f"the Ray cluster has another encoder ({spec.describe()}) than the index ({self._spec.describe()}): "
                "give its machines the same weights"
            )
        worker.is_ready = True

    def _buried(self, worker: _Worker, again: deque[_Job], error: Exception) -> Iterator[Failed | ArchiveEnd]:
        """An actor is dead, or what it made is lost: the first of its jobs was at fault, if any."""
        (_, first), *others = worker.jobs
        worker.jobs.clear()
        again.extend(job for _, job in others)
        self._replace(worker)
        is_memory = isinstance(error, self._ray.exceptions.OutOfMemoryError) or LOW_MEMORY in str(error)
        reason = f"it ended the process that read it, {MOST_DEATHS} times"
        if is_memory:
            reason = f"there is not enough memory: {TRIED_AGAIN}"
        if (given_up := self._again(first, again, reason, lasting=not is_memory)) is not None:
            yield given_up

    def _again(self, job: _Job, again: deque[_Job], reason: str, *, lasting: bool = True) -> Failed | ArchiveEnd | None:
        """Hands out what a job held one by one; of one alone that failed too often, what is to be said."""
        if len(job.items) > 1:
            again.extend(_Job([item]) for item in job.items)
            return None
        job.deaths += 1
        if job.deaths < MOST_DEATHS:
            again.append(job)
            return None
        [item] = job.items
        if isinstance(item, ArchiveWork):
            return Failed(None, item, reason, lasting=False)
        _LOG.warning("%s: %s", item.path, reason)
        return Failed(None, _original(item, self.originals), reason, lasting)

    def _replace(self, worker: _Worker) -> None:
        """Another actor on the same reservation, which Ray moves to another machine if its own is lost."""
        self._workers.remove(worker)
        with suppress(Exception):
            self._ray.kill(worker.handle)
        self._start(worker.place)

    def _check_patience(self, heard: float) -> None:
        """Nothing came for a while: somebody must be at work, or on the way."""
        if any(worker.jobs for worker in self._workers):
            return
        if time.monotonic() - heard > STARTING_S:
            raise ResourceShortage(
                f"no process of the Ray cluster got ready within {STARTING_S:g} seconds: what was complete is kept; "
                "see `ray status`, and run the same command again"
            )


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
