"""Brings an index up to date with folders on disk."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmsearch.core.errors import UsageError
from mmsearch.core.system import usable_cores
from mmsearch.core.types import Progress, Report
from mmsearch.ingest.engine import executor_of
from mmsearch.ingest.options import IngestOptions as IngestOptions
from mmsearch.media.base import DecodeOptions
from mmsearch.media.ocr import TextReader, open_text_reader
from mmsearch.models.encoders.base import Encoder
from mmsearch.models.sounds.base import SoundEncoder
from mmsearch.models.speech.base import SpeechRecogniser
from mmsearch.pipeline.artefacts import RerankerCache, TextInPictures, lacks_tokens, open_cache
from mmsearch.pipeline.compute import shares_inputs
from mmsearch.pipeline.descriptions import describe_again
from mmsearch.pipeline.executor import Executor, ThreadExecutor
from mmsearch.pipeline.fill import Artefact, fill
from mmsearch.pipeline.new_files import NewFiles
from mmsearch.pipeline.plan import Plan, Scope, is_there, make_plan, resolve_changes, resolve_scopes, settle_skipped
from mmsearch.pipeline.reading import Seconds
from mmsearch.pipeline.sounds import SoundsOfContents
from mmsearch.pipeline.speech import OfSpeech, RecognisedSpeech, Subtitles
from mmsearch.pipeline.vanished import absent_at, judge
from mmsearch.sources import is_remote, located
from mmsearch.store.local.catalogue import Root
from mmsearch.store.local.catalogue.sounds import sound_encoder
from mmsearch.store.local.directory import IndexDirectory

REMOTE_READERS = 16
"""Threads that read objects of a store: most of their time they wait for it."""
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
    changed; what ignore rules leave out of a folder is left out here too, and so is what was removed from the index.

    What vanished with the place where it lies (a disk that is not mounted) is not dropped but marked absent: see
    `mmsearch.pipeline.vanished`. It comes back, without encoding, when it is there again.

    Raises:
        UsageError: a path does not exist.
        UsageError: text is to be read, or speech recognised, and there is nothing on this machine that does.
        EncoderError: sounds are to be found, and the encoder is not on this machine.
        IndexBusy: another process is writing to the index.
        EncoderMismatch: the index was made by another encoder.
    """
    reader = open_text_reader() if options.ocr is True else options.ocr or None
    recogniser = options.recogniser()
    known = sound_encoder(index.catalogue)
    sounds = options.sound_encoder(None if known is None else known.name)
    with index.writing(encoder=encoder.spec) as writable:
        return _Run(writable, encoder, options, progress, reader, recogniser, sounds).run(paths, changes)


@dataclass(frozen=True)
class Cleaned:
    """Documents that were dropped, and how many are absent from each place."""

    removed: int = 0
    absent: Counter[str] = field(default_factory=Counter)


class _Run:
    """One run of `ingest`."""

    def __init__(
        self, index: IndexDirectory, encoder: Encoder, options: IngestOptions, progress: ProgressCallback,
        reader: TextReader | None, recogniser: SpeechRecogniser | None, sound_encoder: SoundEncoder | None,
    ) -> None:  # fmt: skip
        self._index = index
        self._encoder = encoder
        self._options = options
        self._decode_options = options.decode_options(encoder)
        self._limits = options.limits
        self._progress = progress
        self._reader, self._recogniser, self._sound_encoder = reader, recogniser, sound_encoder
        self._threads = options.readers or usable_cores()
        self._seconds = Seconds()
        self._started = time.perf_counter()

    def run(self, paths: Sequence[Path], changes: bool) -> Report:
        cache = None if self._options.keep_tokens is None else self._open_cache(self._options.keep_tokens)
        scopes = self._changed(paths) if changes else self._named(paths)
        with self._seconds.of("describe"):
            interrupted = describe_again(self._index, scopes, self._decode_options, self._threads)
        plan = Plan() if interrupted else self._plan(scopes, with_removed=not changes)
        self._bring_back(plan)
        if cache is None and (plan.work or lacks_tokens(self._index)):  # else opening a model would be for nothing
            cache = self._open_cache(None)
        if self._options.readers is None and any(is_remote(scope.folder) for scope in scopes):
            self._threads = max(self._threads, REMOTE_READERS)
        new, executor = self._new_files(plan, cache), self._engine()
        interrupted = interrupted or self._fill(new, executor)
        cleaned = Cleaned() if interrupted else self._clean_up(scopes, plan, changes)
        if cache is not None and not interrupted:
            with self._seconds.of("tokens"):
                interrupted = self._fill(cache, self._executor())
        text = None
        if self._reader is not None and not interrupted:
            with self._seconds.of("text"):
                text = self._text_in_pictures(self._reader, scopes)
                interrupted = self._fill(text, ThreadExecutor(1, self._options.memory_mb, look_ahead=1))
        speech: list[OfSpeech] = []
        if not interrupted:
            with self._seconds.of("speech"):
                interrupted = self._listen(scopes, speech)
        sounds = None
        if self._sound_encoder is not None and not interrupted:
            with self._seconds.of("sounds"):
                sounds = SoundsOfContents(self._index, self._sound_encoder, scopes, self._kept_options)
                interrupted = self._fill(sounds, ThreadExecutor(1, self._options.memory_mb, look_ahead=8))
        self._seconds.include(executor.seconds)
        return self._report(plan, new, cleaned, interrupted, text, speech, sounds)

    def _listen(self, scopes: Sequence[Scope], done: list[OfSpeech]) -> bool:
        """What is said: subtitles of everything first, so that nothing is heard that has some."""
        options = self._kept_options
        done.append(Subtitles(self._index, self._encoder, scopes, options))
        if self._fill(done[-1], self._executor()):
            return True
        if self._recogniser is None:
            return False
        done.append(RecognisedSpeech(self._index, self._encoder, self._recogniser, scopes, options))
        return self._fill(done[-1], ThreadExecutor(1, self._options.memory_mb, look_ahead=1))

    def _kept_options(self, kept: Mapping[str, Any]) -> DecodeOptions:
        return IngestOptions.from_kept(kept).decode_options(self._encoder)

    def _fill(self, artefact: Artefact, executor: Executor) -> bool:
        return fill(artefact, executor, lambda: contextlib.nullcontext(self._index), self._progress)

    def _engine(self) -> Executor:
        """What reads and encodes new files."""
        if self._options.engine is None:
            return self._executor()
        return executor_of(self._options, lambda: self._index.manifest.model, self._encoder.spec)

    def _executor(self) -> ThreadExecutor:
        return ThreadExecutor(self._threads, self._options.memory_mb)

    def _open_cache(self, name: str | None) -> RerankerCache | None:
        return open_cache(self._index, self._encoder, name, self._kept_options)

    def _new_files(self, plan: Plan, cache: RerankerCache | None) -> NewFiles:
        on_the_way = self._options.engine is None and cache is not None and shares_inputs(cache.reranker, self._encoder)
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
        verdicts = judge(self._index, gone, [] if changes else looked_at, plan, self._options.rules)
        absent = absent_at(self._index, catalogue.still_absent(plan.absent), looked_at, plan, self._options.rules)
        removed = catalogue.remove_documents([*verdicts.deleted, *absent.deleted])
        catalogue.keep_absent(document for document, _, _ in verdicts.vanished)
        return Cleaned(removed, verdicts.places + absent.places)

    def _forget_renamed_roots(self) -> None:
        """Of a folder that is gone and took all its documents along, the unreadable files are not kept in mind."""
        catalogue = self._index.catalogue
        for root in catalogue.roots():
            gone = not root.is_dataset and not is_there(self._index.root_path(root))
            if gone and next(catalogue.documents_below(root.id), None) is None:
                catalogue.remove_below(root.id, "")

    def _report(
        self, plan: Plan, new: NewFiles, cleaned: Cleaned, interrupted: bool, text: TextInPictures | None,
        speech: Sequence[OfSpeech], sounds: SoundsOfContents | None,
    ) -> Report:  # fmt: skip
        self._seconds["total"] = time.perf_counter() - self._started
        skipped = sorted((*plan.skipped, *new.skipped), key=lambda skip: skip.path)
        return Report(
            indexed=new.indexed,
            unchanged=plan.unchanged + new.unchanged,
            updated=new.updated,
            removed=cleaned.removed + new.removed,
            absent=sum(cleaned.absent.values()),
            absent_at=tuple(sorted(cleaned.absent)),
            back=len(plan.back),
            skipped=tuple(skipped),
            segments=new.segments,
            interrupted=interrupted,
            text_read=0 if text is None else text.read,
            text_unread=() if text is None else tuple(text.unread),
            subtitled=sum(one.heard for one in speech if not one.is_recognised),
            recognised=sum(one.heard for one in speech if one.is_recognised),
            unheard=tuple(skip for one in speech for skip in one.unheard),
            sounding=0 if sounds is None else sounds.heard,
            unsounded=() if sounds is None else tuple(sounds.unheard),
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
            path = located(path)
            if is_remote(path):
                removed += _remove_at(writable, path)
                continue
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
