"""Brings an index up to date with folders on disk."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmsearch.core.errors import UsageError
from mmsearch.core.system import usable_cores
from mmsearch.core.types import Progress, Report
from mmsearch.ingest.options import IngestOptions as IngestOptions
from mmsearch.media.base import DecodeOptions
from mmsearch.media.ocr import TextReader, open_text_reader
from mmsearch.models.encoders.base import Encoder
from mmsearch.pipeline.artefacts import RerankerCache, TextInPictures, lacks_tokens, open_cache
from mmsearch.pipeline.compute import shares_inputs
from mmsearch.pipeline.executor import Executor, ThreadExecutor
from mmsearch.pipeline.fill import Artefact, fill
from mmsearch.pipeline.new_files import NewFiles
from mmsearch.pipeline.plan import Plan, Scope, make_plan, resolve_changes, resolve_scopes, settle_skipped
from mmsearch.pipeline.reading import Seconds
from mmsearch.store.local.catalogue import Root
from mmsearch.store.local.directory import IndexDirectory

ProgressCallback = Callable[[Progress], None]


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
    changed; what ignore rules leave out of a folder is left out here too.

    Raises:
        UsageError: a path does not exist.
        UsageError: text is to be read, and there is no reader on this machine.
        IndexBusy: another process is writing to the index.
        EncoderMismatch: the index was made by another encoder.
    """
    reader = open_text_reader() if options.ocr is True else options.ocr or None
    with index.writing(encoder=encoder.spec) as writable:
        return _Run(writable, encoder, options, progress, reader).run(paths, changes)


class _Run:
    """One run of `ingest`."""

    def __init__(
        self, index: IndexDirectory, encoder: Encoder, options: IngestOptions, progress: ProgressCallback,
        reader: TextReader | None,
    ) -> None:  # fmt: skip
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
        cache = None if self._options.keep_tokens is None else self._open_cache(self._options.keep_tokens)
        scopes = self._changed(paths) if changes else self._named(paths)
        plan = self._plan(scopes)
        if cache is None and (plan.work or lacks_tokens(self._index)):  # else opening a model would be for nothing
            cache = self._open_cache(None)
        new, executor = self._new_files(plan, cache), self._executor()
        interrupted = self._fill(new, executor)
        removed = 0 if interrupted else self._clean_up(plan)
        if cache is not None and not interrupted:
            with self._seconds.of("tokens"):
                interrupted = self._fill(cache, self._executor())
        text = None
        if self._reader is not None and not interrupted:
            with self._seconds.of("text"):
                text = self._text_in_pictures(self._reader, scopes)
                interrupted = self._fill(text, ThreadExecutor(1, self._options.memory_mb, look_ahead=1))
        self._seconds.include(executor.seconds)
        return self._report(plan, new, removed, interrupted, text)

    def _fill(self, artefact: Artefact, executor: Executor) -> bool:
        return fill(artefact, executor, lambda: contextlib.nullcontext(self._index), self._progress)

    def _executor(self) -> ThreadExecutor:
        return ThreadExecutor(self._options.readers or usable_cores(), self._options.memory_mb)

    def _open_cache(self, name: str | None) -> RerankerCache | None:
        def options(kept: Mapping[str, Any]) -> DecodeOptions:
            return IngestOptions.from_kept(kept).decode_options(self._encoder)

        return open_cache(self._index, self._encoder, name, options)

    def _new_files(self, plan: Plan, cache: RerankerCache | None) -> NewFiles:
        on_the_way = cache is not None and shares_inputs(cache.reranker, self._encoder)
        return NewFiles(
            self._index,
            self._index.space(),
            self._encoder,
            plan,
            self._decode_options,
            self._limits,
            tokens_of=cache.reranker if cache is not None and on_the_way else None,
        )

    def _text_in_pictures(self, reader: TextReader, scopes: Sequence[Scope]) -> TextInPictures:
        # Decoders give twice the side that an encoder needs; what a reader asks for is what it can use. Nothing is cut,
        # or lines would be cut with the picture.
        options = replace(self._decode_options, min_side=(reader.shorter_side + 1) // 2, cut_wide=False)
        return TextInPictures(self._index, reader, scopes, lambda _: options)

    def _named(self, paths: Sequence[Path]) -> list[Scope]:
        scopes = resolve_scopes(self._index, paths)
        with self._index.catalogue.transaction():
            for scope in scopes:
                self._index.catalogue.keep_scope(scope.root.id, scope.below, self._options.kept())
        return scopes

    def _changed(self, paths: Sequence[Path]) -> list[Scope]:
        return resolve_changes(self._index, paths, self._options.rules)

    def _plan(self, scopes: Sequence[Scope]) -> Plan:
        plan = make_plan(
            self._index,
            scopes,
            self._options.rules,
            self._decode_options,
            lambda files: self._progress(Progress("walk", files, None)),
        )
        settle_skipped(self._index, scopes, plan, self._limits)
        self._seconds["walk"] = time.perf_counter() - self._started
        return plan

    def _clean_up(self, plan: Plan) -> int:
        """Drops what is gone. Last, so that files that only moved have taken their vectors along."""
        catalogue = self._index.catalogue
        with self._seconds.of("commit"), catalogue.transaction():
            removed = catalogue.remove_documents(plan.gone)
            for root_id, path in plan.forgotten_archives:
                catalogue.drop_archive(root_id, path)
            for root_id, path in plan.forgotten:
                catalogue.forget_skipped(root_id, [path])
            catalogue.drop_unused_contents()
            self._forget_renamed_roots()
            catalogue.drop_empty_roots()
        return removed

    def _forget_renamed_roots(self) -> None:
        """Of a folder that is gone and took all its documents along, the unreadable files are not kept in mind."""
        catalogue = self._index.catalogue
        for root in catalogue.roots():
            gone = not root.is_dataset and not os.path.lexists(self._index.root_path(root))
            if gone and next(catalogue.documents_below(root.id), None) is None:
                catalogue.remove_below(root.id, "")

    def _report(
        self, plan: Plan, new: NewFiles, removed: int, interrupted: bool, text: TextInPictures | None
    ) -> Report:
        self._seconds["total"] = time.perf_counter() - self._started
        skipped = sorted((*plan.skipped, *new.skipped), key=lambda skip: skip.path)
        return Report(
            indexed=new.indexed,
            unchanged=plan.unchanged + new.unchanged,
            updated=new.updated,
            removed=removed + new.removed,
            skipped=tuple(skipped),
            segments=new.segments,
            interrupted=interrupted,
            text_read=0 if text is None else text.read,
            text_unread=() if text is None else tuple(text.unread),
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
    return index.catalogue.remove_below(root.id, path)
