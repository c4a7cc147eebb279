"""Brings an index up to date with folders on disk."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmsearch.core.errors import UsageError
from mmsearch.core.system import usable_cores
from mmsearch.core.types import Progress, Report
from mmsearch.media.base import DecodeOptions
from mmsearch.media.ocr import TextReader, has_text_reader, open_text_reader
from mmsearch.models.encoders.base import Encoder
from mmsearch.pipeline.bounded_queue import BoundedQueue
from mmsearch.pipeline.filling import fill_tokens, lacks_tokens, open_keeper
from mmsearch.pipeline.plan import Plan, Scope, make_plan, resolve_changes, resolve_scopes, settle_skipped
from mmsearch.pipeline.reading import Readers
from mmsearch.pipeline.seconds import Seconds
from mmsearch.pipeline.text_in_pictures import TextRead, read_text_in_pictures
from mmsearch.pipeline.vanished import absent_at, judge
from mmsearch.pipeline.writing import Writer
from mmsearch.sources import WalkRules
from mmsearch.store.local.catalogue import Root
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.reranker_cache import TokenKeeper

ProgressCallback = Callable[[Progress], None]
_LEAST_LOOK_AHEAD = 64
"""Inputs; so many let a few slow files pass without the encoder noticing."""


@dataclass(frozen=True)
class IngestOptions:
    """How to index. ``readers`` is the number of decode threads (``None``: one for each core).

    ``memory_mb``: megabytes that decoded inputs may take while they wait for the encoder, and as many again for
    samples of archives that wait for a reader. Besides, each reader holds one picture at a time (up to
    ``max_megapixels``, at three bytes a pixel, twice while colours are converted; of a JPEG only the reduced one) or
    one member of an archive, and the encoder a batch.

    ``ocr``: read the text in pictures and video frames, after everything else; `True` with the reader of the extra
    ``mmsearch[ocr]``, or with a reader of your own.

    ``keep_tokens`` names a reranker whose image tokens are kept with the index from now on, also of what is in it
    already (``None``: as before). A reranked question then opens no picture.

    ``forget_missing``: what is not there any more is dropped even where the whole place vanished
    (`mmsearch.pipeline.vanished`), and so is what is absent since earlier runs.
    """

    rules: WalkRules = field(default_factory=WalkRules)
    max_megapixels: float = 89.0
    frame_interval_s: float = 2.0
    readers: int | None = None
    memory_mb: float = 256.0
    ocr: bool | TextReader = False
    keep_tokens: str | None = None
    forget_missing: bool = False

    def __post_init__(self) -> None:
        if self.readers is not None and self.readers < 1:
            raise UsageError(f"there must be at least one reader, got {self.readers}")
        if self.memory_mb <= 0 or self.max_megapixels <= 0 or self.frame_interval_s <= 0:
            raise UsageError("memory_mb, max_megapixels and frame_interval_s must be above 0")

    def kept(self) -> dict[str, Any]:
        """What decides which files are indexed and how, as plain values; `from_kept` reads them."""
        return {
            "hidden": self.rules.hidden,
            "exclude": list(self.rules.exclude),
            "max_megapixels": self.max_megapixels,
            "frame_interval_s": self.frame_interval_s,
            "ocr": bool(self.ocr),
        }

    @classmethod
    def from_kept(cls, values: Mapping[str, Any]) -> IngestOptions:
        """The options that a part of an index was last brought up to date with."""
        rules = WalkRules(bool(values.get("hidden", False)), tuple(values.get("exclude", ())))
        rest: dict[str, Any] = {
            name: float(values[name]) for name in ("max_megapixels", "frame_interval_s") if name in values
        }
        return cls(rules=rules, **rest, ocr=bool(values.get("ocr")) and has_text_reader())

    @property
    def limits(self) -> str:
        """Names the settings that decide what is refused."""
        return f" max-megapixels={self.max_megapixels:g}"

    def decode_options(self, encoder: Encoder) -> DecodeOptions:
        """What the decoders must know, of these options and of the encoder."""
        return DecodeOptions(
            min_side=encoder.input_size,
            max_megapixels=self.max_megapixels,
            frame_interval_s=self.frame_interval_s,
            max_tokens=encoder.max_text_tokens,
            count_tokens=encoder.count_tokens,
        )


def ingest(
    index: IndexDirectory,
    encoder: Encoder,
    paths: Sequence[Path],
    options: IngestOptions = IngestOptions(),
    progress: ProgressCallback = lambda _: None,
    *,
    changes: bool = False,
) -> Report:
    """Indexes what is new or changed at ``paths``, drops what is gone there, and says what it did.

    A file that cannot be read becomes a skip with its reason. An interrupt (Ctrl-C) commits what is complete
    and returns a report with ``interrupted`` set; the same call later finishes the job.

    With ``changes``, the paths are places inside of what is indexed already, where something may have come, gone or
    changed; what ignore rules leave out of a folder is left out here too, and so is what was removed from the index.

    What vanished with the place where it lies (a disk that is not mounted) is not dropped but marked absent: see
    `mmsearch.pipeline.vanished`. It comes back, without encoding, when it is there again.

    Raises:
        UsageError: a path does not exist.
        UsageError: text is to be read, and there is no reader on this machine.
        IndexBusy: another process is writing to the index.
        EncoderMismatch: the index was made by another encoder.
    """
    reader = open_text_reader() if options.ocr is True else options.ocr or None
    with index.writing(encoder=encoder.spec) as writable:
        keeper = None if options.keep_tokens is None else open_keeper(writable, encoder, options.keep_tokens)
        return _Run(writable, encoder, options, progress, reader, keeper).run(paths, changes)


@dataclass(frozen=True)
class Cleaned:
    """Documents that were dropped, and how many are absent from each place."""

    removed: int = 0
    absent: Counter[str] = field(default_factory=Counter)


class _Run:
    """One run of `ingest`."""

    def __init__(
        self, index: IndexDirectory, encoder: Encoder, options: IngestOptions, progress: ProgressCallback,
        reader: TextReader | None, keeper: TokenKeeper | None,
    ) -> None:  # fmt: skip
        self._keeper = keeper
        self._index = index
        self._encoder = encoder
        self._options = options
        self._decode_options = options.decode_options(encoder)
        self._limits = options.limits
        self._progress = progress
        self._reader = reader
        self._seconds = Seconds()
        self._started = time.perf_counter()

    def run(self, paths: Sequence[Path], changes: bool) -> Report:
        scopes = self._changed(paths) if changes else self._named(paths)
        plan = self._plan(scopes, with_removed=not changes)
        self._bring_back(plan)
        if self._keeper is None and (
            plan.work or lacks_tokens(self._index)
        ):  # else opening a model would be for nothing
            self._keeper = open_keeper(self._index, self._encoder, None)
        readers, writer = self._workers(plan)
        interrupted = self._read_and_write(plan, readers, writer)
        cleaned = Cleaned() if interrupted else self._clean_up(scopes, plan, changes)
        interrupted = interrupted or self._fill_tokens()
        text = TextRead()
        if self._reader is not None and not interrupted:
            with self._seconds.of("text"):
                text = read_text_in_pictures(self._index, self._reader, scopes, self._decode_options, self._progress)
        return self._report(plan, readers, writer, cleaned, interrupted, text)

    def _named(self, paths: Sequence[Path]) -> list[Scope]:
        scopes = resolve_scopes(self._index, paths)
        with self._index.catalogue.transaction():
            for scope in scopes:
                self._index.catalogue.keep_scope(scope.root.id, scope.below, self._options.kept())
                self._index.catalogue.clear_removed(scope.root.id, scope.below)
        return scopes

    def _changed(self, paths: Sequence[Path]) -> list[Scope]:
        return resolve_changes(self._index, paths, self._options.rules)

    def _plan(self, scopes: Sequence[Scope], *, with_removed: bool) -> Plan:
        plan = make_plan(
            self._index,
            scopes,
            self._options.rules,
            self._decode_options,
            lambda files: self._progress(Progress("walk", files, None)),
            with_removed=with_removed,
        )
        settle_skipped(self._index, scopes, plan, self._limits)
        self._seconds["walk"] = time.perf_counter() - self._started
        return plan

    def _workers(self, plan: Plan) -> tuple[Readers, Writer]:
        space = self._index.space()
        readers = Readers(
            plan.work,
            self._index.catalogue,
            space.id,
            self._encoder,
            self._decode_options,
            threads=self._options.readers or usable_cores(),
            queue=BoundedQueue(
                items=max(_LEAST_LOOK_AHEAD, 4 * self._encoder.batch_size), size=int(1e6 * self._options.memory_mb)
            ),
        )
        return readers, Writer(
            self._index, space, self._encoder, limits=self._limits, settled=readers.settled, keeper=self._keeper
        )

    def _read_and_write(self, plan: Plan, readers: Readers, writer: Writer) -> bool:
        """Runs the pipeline; returns whether it was interrupted."""
        already, files = plan.unchanged + len(plan.skipped), _files(plan)
        interrupted = False
        try:
            for message in readers:
                writer.take(message)
                done, total = already + writer.files_in_hand, files + readers.samples
                skipped = len(plan.skipped) + len(writer.skipped)
                self._progress(Progress("index", done, total, skipped, str(message.work.path)))
            writer.finish()
        except KeyboardInterrupt:
            interrupted = True
        finally:
            readers.stop()
        if interrupted:
            writer.commit()
        return interrupted

    def _fill_tokens(self) -> bool:
        """Of all pictures that lack them; returns whether it was interrupted, which the next run makes up for."""
        if self._keeper is None:
            return False
        try:
            with self._seconds.of("tokens"):
                fill_tokens(
                    self._keeper,
                    self._index.space(),
                    self._decode_options,
                    lambda done, total, path: self._progress(Progress("tokens", done, total, path=path)),
                )
        except KeyboardInterrupt:
            return True
        return False

    def _bring_back(self, plan: Plan) -> None:
        """First of all: whatever becomes of the rest of the run, these are there."""
        if plan.back:
            with self._seconds.of("commit"), self._index.catalogue.transaction():
                self._index.catalogue.bring_back(plan.back)

    def _clean_up(self, scopes: Sequence[Scope], plan: Plan, changes: bool) -> Cleaned:
        """Drops what was deleted, and marks absent what vanished. Last, so that files that only moved have taken their
        vectors along.
        """
        catalogue = self._index.catalogue
        with self._seconds.of("commit"), catalogue.transaction():
            cleaned = self._settle_gone(scopes, plan, changes)
            for root_id, path in plan.forgotten_archives:
                if not catalogue.count_absent(root_id, path):
                    catalogue.drop_archive(root_id, path)
            for root_id, path in plan.forgotten:
                catalogue.forget_skipped(root_id, [path])
            for root_id, folders in plan.folders.items():
                known = catalogue.folders_below(root_id)
                catalogue.put_folders(root_id, {path: one for path, one in folders.items() if known.get(path) != one})
            catalogue.drop_unused_contents()
            self._forget_renamed_roots()
            catalogue.drop_empty_roots()
        return cleaned

    def _settle_gone(self, scopes: Sequence[Scope], plan: Plan, changes: bool) -> Cleaned:
        catalogue = self._index.catalogue
        if self._options.forget_missing:
            return Cleaned(catalogue.remove_documents([*plan.gone, *plan.absent]))
        gone = catalogue.still_there(plan.gone)
        looked_at = [(scope.root.id, scope.below) for scope in scopes]
        verdicts = judge(self._index, gone, [] if changes else looked_at, plan.last_id)
        absent = absent_at(self._index, catalogue.still_absent(plan.absent), looked_at)
        removed = catalogue.remove_documents([*verdicts.deleted, *absent.deleted])
        catalogue.keep_absent(document for document, _, _ in verdicts.vanished)
        return Cleaned(removed, verdicts.places + absent.places)

    def _forget_renamed_roots(self) -> None:
        """Of a folder that is gone and took all its documents along, the unreadable files are not kept in mind."""
        catalogue = self._index.catalogue
        for root in catalogue.roots():
            gone = not root.is_dataset and not os.path.lexists(self._index.root_path(root))
            if gone and next(catalogue.documents_below(root.id), None) is None:
                catalogue.remove_below(root.id, "")

    def _report(
        self, plan: Plan, readers: Readers, writer: Writer, cleaned: Cleaned, interrupted: bool,
        text: TextRead,
    ) -> Report:  # fmt: skip
        self._seconds.include(readers.seconds)
        self._seconds["wait"] = readers.waited
        self._seconds.include(writer.seconds)
        self._seconds["total"] = time.perf_counter() - self._started
        skipped = sorted((*plan.skipped, *writer.skipped), key=lambda skip: skip.path)
        return Report(
            indexed=writer.indexed,
            unchanged=plan.unchanged + writer.unchanged,
            updated=writer.updated,
            removed=cleaned.removed + writer.removed,
            absent=sum(cleaned.absent.values()),
            absent_at=tuple(sorted(cleaned.absent)),
            back=len(plan.back),
            skipped=tuple(skipped),
            segments=writer.segments,
            interrupted=interrupted or text.interrupted,
            text_read=text.read,
            text_unread=tuple(text.failed),
            seconds={stage: round(seconds, 3) for stage, seconds in self._seconds.items()},
        )


def remove(index: IndexDirectory, paths: Sequence[Path]) -> int:
    """Drops the documents at or below ``paths`` from the index (never a file from the disk); returns how many.

    Raises:
        UsageError: no part of the index lies at one of the paths.
    """
    removed = 0
    with index.writing() as writable, writable.catalogue.transaction():
        for path in paths:
            removed += _remove_dataset(writable, str(path))
            absolute = Path(os.path.normpath(path.expanduser().absolute()))
            removed += _remove_at(writable, absolute) or _remove_at(writable, Path(os.path.realpath(path)))
        if not removed:
            shown = ", ".join(str(path) for path in paths)
            raise UsageError(f"nothing in the index lies at {shown}: `mmsearch status` lists the indexed folders")
        writable.catalogue.drop_unused_contents()
        writable.catalogue.drop_empty_roots()
    return removed


def _remove_dataset(index: IndexDirectory, name: str) -> int:
    datasets = [root for root in index.catalogue.roots() if root.is_dataset and root.path == name]
    return sum(index.catalogue.remove_below(root.id, "") for root in datasets)


def _remove_at(index: IndexDirectory, path: Path) -> int:
    removed = 0
    for root in index.catalogue.roots():
        folder = index.root_path(root)
        if root.is_dataset:
            continue
        if path == folder or path in folder.parents:
            removed += _remove_below(index, root, "")
        elif folder in path.parents:
            removed += _remove_below(index, root, path.relative_to(folder).as_posix())
    return removed


def _remove_below(index: IndexDirectory, root: Root, path: str) -> int:
    index.catalogue.drop_scopes(root.id, path)
    index.catalogue.drop_archives(root.id, path)
    removed = index.catalogue.remove_below(root.id, path)
    if removed and path:
        index.catalogue.put_removed(root.id, path)
    return removed


def _files(plan: Plan) -> int:
    return plan.unchanged + len(plan.skipped) + len(plan.work)
