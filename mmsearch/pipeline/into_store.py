"""Files into any store: what `mmsearch index` does where the store is no index directory.

The line is that of a directory: plan → read → compute → commit, and last what is gone is dropped. The same walk,
reader, batch functions and executors; the commit is `Store.upsert`. What is known of files comes from `Store.files`,
held for one root at a time (about 0.3 GB for a million files).
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch.core.types import MediaInfo, Modality, Progress, Skip
from mmsearch.media import DECODERS
from mmsearch.media.archive import archive_decoding
from mmsearch.media.base import DecodeOptions
from mmsearch.media.live_photos import is_live_photo
from mmsearch.models.encoders.base import Encoder
from mmsearch.pipeline.compute import ImageVectors, TextVectors
from mmsearch.pipeline.executor import Round
from mmsearch.pipeline.fill import Artefact, Rows
from mmsearch.pipeline.plan import CAPTIONED, SUBTITLED, ArchiveWork, Scope, Work, archive_of, is_there
from mmsearch.pipeline.reading import ArchiveEnd, Failed, Finished, Known, KnownContent, Reader, Twin
from mmsearch.pipeline.vanished import LARGE
from mmsearch.sources import ARCHIVE_SUFFIX, FileEntry, FolderSeen, Unreadable, WalkRules, clip_stamp, is_remote, walk
from mmsearch.store.base import FloatArray, NewDocument, NewSegment, Store, StoredContent, StoredFile
from mmsearch.store.local.catalogue import Root
from mmsearch.store.local.commit import ContentKey

BESIDE = ("taken_at", "camera", "lens", "latitude", "longitude", "rating")
SKIPPED, ARCHIVE, FOLDER = "skipped", "archive", "folder"
"""Kinds of what a store remembers of files."""


@dataclass
class FolderPlan:
    """What a walk of one folder found, compared with the store. ``known``: all files of the store there, by path.
    ``met``: what lies there. ``unknowable``: beginnings of paths that could not be listed.
    """

    scope: Scope
    known: dict[str, StoredFile]
    met: set[str] = field(default_factory=set)
    work: list[Work | ArchiveWork] = field(default_factory=list)
    unchanged: int = 0
    skipped: list[Skip] = field(default_factory=list)
    unknowable: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    """Files that were skipped earlier and are not there any more."""
    is_there: bool = True

    @property
    def gone(self) -> list[StoredFile]:
        """Files that were not met where all was listed."""
        lost = []
        for path, one in self.known.items():
            archive = archive_of(path)
            if path in self.met or (archive is not None and archive in self.met):
                continue
            if not any(path.startswith(beginning) for beginning in self.unknowable):
                lost.append(one)
        return lost


def scope_of(place: Path, number: int, known: Sequence[str] = ()) -> Scope:
    """A folder, or a file in its folder, as it is kept in a store: below one of the roots that are ``known``, else as a
    root of its own.
    """
    for root in sorted(known, key=len, reverse=True):
        if str(place) == root or str(place).startswith(root.rstrip("/") + "/"):
            folder = type(place)(root)
            return Scope(Root(number, root, False), folder, str(place)[len(root) :].strip("/"))
    is_folder = place.is_dir()
    folder = place if is_folder else place.parent
    return Scope(Root(number, str(folder), False), folder, "" if is_folder else place.name)


def plan_folder(
    store: Store, scope: Scope, rules: WalkRules, options: DecodeOptions, limits: str,
    seen: Callable[[int], None] = lambda _: None,
) -> FolderPlan:  # fmt: skip
    """Walks a folder and sorts what it meets. ``limits``: see `mmsearch.ingest.IngestOptions.limits`."""
    root = scope.root.path
    plan = FolderPlan(scope, {one.path: one for one in store.files(root, scope.below)})
    remembered = store.remembered(SKIPPED, root)
    archives = store.remembered(ARCHIVE, root)
    decoders = {suffix: (one, one.signature(options)) for one in DECODERS for suffix in one.suffixes}
    of_archives = archive_decoding(options)

    def is_clip(photo: str, clip: str, status: os.stat_result) -> bool | None:
        if photo in remembered:
            return None
        stamps = plan.known[photo].sidecars.split("/") if photo in plan.known else []
        for verdict in (True, False):
            if clip_stamp(clip, status, verdict) in stamps:
                return verdict
        place = scope.folder / photo
        return None if is_remote(place) else is_live_photo(place, place.with_name(clip))

    folders: dict[str, FolderSeen] = {}
    plan.is_there = is_there(scope.folder)
    found = walk(scope.folder, rules, scope.below, CAPTIONED, folders, is_clip, subtitled=SUBTITLED)
    for number, met in enumerate(found if plan.is_there else ()):
        if number % 500 == 0:
            seen(number)
        if isinstance(met, Unreadable):
            plan.skipped.append(Skip(str(scope.folder / met.path), met.reason))
            plan.unknowable.append(met.path + "/" if met.is_directory and met.path else met.path)
            continue
        plan.met.add(met.path)
        if met.path.endswith(ARCHIVE_SUFFIX):
            _sort_archive(plan, met, archives.get(met.path), of_archives, remembered)
            continue
        suffix = os.path.splitext(met.path)[1]  # noqa: PTH122  (a Path costs ten times as much, a million times)
        decoder, decoding = decoders.get(suffix.lower(), (None, ""))
        if decoder is None:
            reason = f"files of type {suffix} are not supported" if suffix else "it has no file suffix"
            plan.skipped.append(Skip(str(scope.folder / met.path), reason))
            continue
        old = remembered.pop(met.path, None)
        known = plan.known.get(met.path)
        if known is not None and _stamp_of(known) == (met.size, met.mtime_ns, decoding, met.sidecars):
            plan.unchanged += 1
        elif old is not None and old[:4] == [*met[1:4], decoding + limits]:
            plan.skipped.append(Skip(str(scope.folder / met.path), old[4]))
        else:
            plan.work.append(Work(scope, met, decoder, decoding, None))
    plan.forgotten = [
        path for path in remembered
        if (not scope.below or path.startswith(scope.below)) and path not in plan.met
        and (archive_of(path) or path) not in plan.met
    ]  # fmt: skip
    return plan


def _stamp_of(known: StoredFile) -> tuple[int, int, str, str]:
    return (known.size, known.mtime_ns, known.decoding, known.sidecars)


def _sort_archive(
    plan: FolderPlan, met: FileEntry, old: list[Any] | None, decoding: str, remembered: Mapping[str, list[Any]]
) -> None:
    if old == [met.size, met.mtime_ns, decoding]:
        plan.unchanged += sum(archive_of(path) == met.path for path in plan.known)
        plan.skipped += [
            Skip(str(plan.scope.folder / path), values[4])
            for path, values in remembered.items() if (archive_of(path) or path) == met.path
        ]  # fmt: skip
    else:
        plan.work.append(ArchiveWork(plan.scope, met, decoding))


@dataclass
class StoreBatch:
    """What one commit makes true. Of ``documents``, those of ``contents`` were made in this run."""

    documents: list[NewDocument] = field(default_factory=list)
    vectors: list[FloatArray] = field(default_factory=list)
    works: list[Work] = field(default_factory=list)
    contents: list[Content] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    ended: list[ArchiveEnd] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self.documents or self.failed or self.ended)


@dataclass(frozen=True)
class Content:
    """One that was made."""

    key: ContentKey
    stored: StoredContent


class StoreFiles(Artefact):
    """Each file of some plans becomes a document of a store with its vectors, or is skipped with a reason."""

    def __init__(
        self, store: Store, encoder: Encoder, plans: Sequence[FolderPlan], options: DecodeOptions, limits: str
    ) -> None:
        super().__init__()
        self._store, self._plans, self._limits = store, plans, limits
        self._reader = Reader(encoder.prepare_image, options)
        self.functions = {"image": ImageVectors(encoder), "text": TextVectors(encoder)}
        self._is_empty = store.count() == 0
        self._guard = threading.Lock()
        self._numbers: dict[ContentKey, int] = {}
        self._known: dict[ContentKey, StoredContent] = {}
        self._made: set[ContentKey] = set()
        self._contents: dict[ContentKey, Content] = {}
        self._placed: list[tuple[Work, ContentKey]] = []
        self._twins: dict[ContentKey, list[Twin]] = {}
        self._failed: list[Failed] = []
        self._failures: dict[ContentKey, Failed] = {}
        self._ended: list[ArchiveEnd] = []
        self._settled: set[str] = set()
        self._skips: dict[str, bool] = {}
        self._was = {(plan.scope.root.path, path): one for plan in plans for path, one in plan.known.items()}
        self._gone = Counter((one.hash, one.decoding) for plan in plans for one in plan.gone)
        self._total = sum(plan.unchanged + len(plan.skipped) + len(plan.work) for plan in plans)
        self._done = sum(plan.unchanged + len(plan.skipped) for plan in plans)
        self.indexed = self.updated = self.unchanged = self.segments = self.removed = 0
        self.moved: Counter[ContentKey] = Counter()
        """Contents whose file was met at another path than before: so many of the gone files are not deleted ones."""
        self.skipped: list[Skip] = []

    def rounds(self) -> Iterator[Round]:
        """See `Artefact.rounds`."""
        yield Round([work for plan in self._plans for work in plan.work], self._reader, self._known_content)

    def _known_content(self, key: ContentKey) -> KnownContent | None:
        """Called from the threads that read. An empty store is not asked for every file."""
        with self._guard:
            if self._is_empty and key not in self._made:
                return None
        found = self._store.contents([key]).get(key)
        if found is None:
            return None
        with self._guard:
            self._known[key] = found
            return self._numbers.setdefault(key, len(self._numbers)), found.modality

    def finish(self, item: Finished, rows: Rows) -> None:
        """See `Artefact.finish`."""
        assert item.work is not None
        if not rows:
            self.take(Failed(item.item, item.work, "there is nothing in it to index", lasting=True))
            return
        self._contents[item.item] = Content(item.item, content_of(item, rows))
        self.rows += len(rows)
        self._placed.append((item.work, item.item))
        self._tell(item.work)

    def take(self, message: Known | Twin | Failed | ArchiveEnd) -> None:
        """See `Artefact.take`."""
        if isinstance(message, ArchiveEnd):
            self._ended.append(message)
        elif isinstance(message, Twin):
            self._twins.setdefault(message.item, []).append(message)
        elif isinstance(message, Known):
            assert message.item is not None
            self._placed.append((message.work, message.item))
            self.rows += 1
        else:
            if message.item is not None:
                self._failures[message.item] = message
            self._failed.append(message)
        self._tell(message.work)

    def _tell(self, work: Work | ArchiveWork) -> None:
        self._done += 1
        self._total = max(self._total, self._done)
        self.news.append(Progress("index", self._done, self._total, len(self.skipped), str(work.path)))

    def batch(self) -> Any:
        """See `Artefact.batch`: a `StoreBatch`."""
        self._settle_twins()
        batch = StoreBatch(contents=list(self._contents.values()), failed=list(self._failed))
        for work, key in self._placed:
            content = self._contents[key].stored if key in self._contents else self._known[key]
            batch.documents.append(document_of(work, key, content))
            batch.vectors.append(content.vectors)
            batch.works.append(work)
        # An archive is read whole once all its samples are stored; a sample's message may still come.
        settled = {work.file.path for work, _ in self._placed} | {one.work.file.path for one in self._failed}
        self._settled |= settled
        batch.ended = [end for end in self._ended if end.samples <= self._settled]
        return batch

    def _settle_twins(self) -> None:
        for key, twins in list(self._twins.items()):
            if key in self._failures:
                failure = self._failures[key]
                self._failed += [Failed(key, twin.work, failure.reason, failure.lasting) for twin in twins]
            elif key in self._contents or key in self._known:
                self._placed += [(twin.work, key) for twin in twins]
            elif key in self._made and (found := self._store.contents([key]).get(key)) is not None:
                self._known[key] = found
                self._placed += [(twin.work, key) for twin in twins]
            else:
                continue
            del self._twins[key]

    def commit(self, index: Any, batch: Any) -> Any:
        """Makes a batch true in the store."""
        if batch.documents:
            self._store.upsert(batch.documents, np.concatenate(batch.vectors))
        notes: dict[str, dict[str, list[Any] | None]] = {}
        gone: list[int] = []
        for failed in batch.failed:
            work, root = failed.work, failed.work.scope.root.path
            decoding = work.decoding + self._limits if failed.lasting else ""
            notes.setdefault(root, {})[work.file.path] = [*work.file[1:4], decoding, failed.reason]
            was = self._was.get((root, work.file.path))
            if failed.lasting and was is not None:  # what was indexed is no longer what lies there
                gone.append(was.id)
        for work in batch.works:
            if (work.scope.root.path, work.file.path) not in self._was:
                notes.setdefault(work.scope.root.path, {}).setdefault(work.file.path, None)
        for root, values in notes.items():
            had = self._had_skips(root)
            told = {path: value for path, value in values.items() if value is not None or had}
            if told:
                self._store.remember(SKIPPED, root, told)
        for end in batch.ended:
            root, file = end.work.scope.root.path, end.work.file
            self._store.remember(ARCHIVE, root, {file.path: [file.size, file.mtime_ns, end.work.decoding]})
            if end.problem:
                refused = [*file[1:4], end.work.decoding + self._limits, end.problem]
                self._store.remember(SKIPPED, root, {file.path: refused})
            gone += [
                one.id for (of, path), one in self._was.items()
                if of == root and archive_of(path) == file.path and path not in end.samples
            ]  # fmt: skip
        self.removed += self._store.drop(gone) if gone else 0
        return None

    def _had_skips(self, root: str) -> bool:
        if root not in self._skips:
            self._skips[root] = bool(self._store.remembered(SKIPPED, root))
        return self._skips[root]

    def committed(self, batch: Any, done: Any) -> None:
        """See `Artefact.committed`."""
        for work, key in self._placed:
            was = self._was.get((work.scope.root.path, work.file.path))
            if was is not None:
                same = (was.hash, was.decoding, was.sidecars) == (*key, work.file.sidecars)
                self.unchanged += same
                self.updated += not same
            elif self._gone[key] > self.moved[key]:
                self.moved[key] += 1
                self.updated += 1
            else:
                self.indexed += 1
        self.skipped += [Skip(str(failed.work.path), failed.reason) for failed in batch.failed]
        for end in batch.ended:
            self._ended.remove(end)
            if end.problem:
                self.skipped.append(Skip(str(end.work.path), end.problem))
        self.segments += sum(len(content.stored.vectors) for content in batch.contents)
        with self._guard:
            self._made |= self._contents.keys()
            self._known.clear()
        self.rows = 0
        self._contents, self._placed, self._failed = {}, [], []


def content_of(item: Finished, rows: Rows) -> StoredContent:
    """What was made of a file that was read: ``rows``, its pieces in order with their vectors."""
    assert item.work is not None
    segments = [NewSegment(piece.start_s, piece.end_s, piece.text) for piece, _ in rows]
    vectors: FloatArray = np.stack([output["vector"] for _, output in rows])
    return StoredContent(item.work.decoder.modality, item.info, segments, vectors)


def document_of(work: Work, key: ContentKey, content: StoredContent) -> NewDocument:
    """A file as a document of a store, with what lies beside it."""
    file, beside = work.file, work.beside
    written = {name: value for name in BESIDE if (value := getattr(beside.info, name)) is not None}
    if "taken_at" in written:
        date = beside.date_for(content.info.taken_at)
        written = {**written, "taken_at": date} if date is not None else _without(written, "taken_at")
    info: MediaInfo = replace(content.info, **written)
    modality: Modality = content.modality
    return NewDocument(
        file.path, modality, key[0], content.segments, work.scope.root.path, info, file.size, file.mtime_ns,
        beside.caption, key[1], file.sidecars, content.info if info != content.info else None,
    )  # fmt: skip


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


@dataclass(frozen=True)
class Settled:
    """Documents that were dropped, and how many are kept though they are not there, by place."""

    removed: int = 0
    absent: Counter[str] = field(default_factory=Counter)


def settle(store: Store, plans: Sequence[FolderPlan], moved: Mapping[ContentKey, int], *, forget: bool) -> Settled:
    """Drops what is gone, last of all, and only where the listing was complete and the place is really there.

    Kept and told are: all of a folder that is not there, or empty; and so much that nobody should believe it: `LARGE`
    documents and more than half of what a root or a folder just below it held (`mmsearch.pipeline.vanished`).
    ``forget``: drops those too. Files that only moved count as neither.
    """
    left = Counter(dict(moved))
    removed: list[int] = []
    absent: Counter[str] = Counter()
    for plan in plans:
        gone, moved_away = [], []
        for one in plan.gone:
            key = (one.hash, one.decoding)
            if left[key] > 0:
                left[key] -= 1
                moved_away.append(one)
            else:
                gone.append(one)
        kept = set() if forget else _not_believed(plan, gone, absent)
        removed += [one.id for one in (*gone, *moved_away) if one.path not in kept]
        if plan.is_there and plan.forgotten:
            store.remember(SKIPPED, plan.scope.root.path, dict.fromkeys(plan.forgotten))
    moves = sum(moved.values())
    return Settled(max(0, (store.drop(removed) if removed else 0) - moves), absent)


def _not_believed(plan: FolderPlan, gone: Sequence[StoredFile], absent: Counter[str]) -> set[str]:
    """The paths of what is kept; counted by place."""
    if not gone:
        return set()
    if not plan.is_there or not plan.met:
        absent[str(plan.scope.folder / plan.scope.below) if plan.scope.below else str(plan.scope.folder)] += len(gone)
        return {one.path for one in gone}
    kept: set[str] = set()
    tops = {one.path.partition("/")[0] for one in gone if "/" in one.path}
    for top in ("", *sorted(tops)):
        inside = [one for one in gone if not top or one.path.startswith(top + "/")]
        held = sum(not top or path.startswith(top + "/") for path in plan.known)
        is_here = not top or is_there(plan.scope.folder / top)
        if is_here and len(inside) >= LARGE and 2 * len(inside) > held:
            fresh = [one.path for one in inside if one.path not in kept]
            absent[str(plan.scope.folder / top) if top else str(plan.scope.folder)] += len(fresh)
            kept |= set(fresh)
    return kept
