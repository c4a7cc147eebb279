"""Contents that are indexed already and lack something: each is read again where it lies, as it was read before."""

from __future__ import annotations

import os
import stat
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.media import decoder_for
from mmsearch.media.archive import archive_decoding, shown_by
from mmsearch.media.base import DecodeOptions
from mmsearch.pipeline.executor import Round
from mmsearch.pipeline.fill import Artefact, Rows
from mmsearch.pipeline.plan import ArchiveWork, Scope, Work, archive_of, kept_scopes
from mmsearch.pipeline.reading import ArchiveEnd, Failed, Finished, Known, KnownContent, Reader, Twin
from mmsearch.sources import FileEntry, is_remote
from mmsearch.store.local.catalogue.coverage import Lacking, PendingContent, Place, StoredSegment
from mmsearch.store.local.commit import Batch, Committed, ContentKey
from mmsearch.store.local.directory import IndexDirectory

CHANGED = "it changed since it was indexed: run `mmsearch index` on it first"
OTHER_VERSION = "this version of mmsearch reads it differently: run `mmsearch index` on it first"
IMPORTED = "its vectors were imported, there is no file to read"
OptionsOf = Callable[[Mapping[str, Any]], DecodeOptions]
"""How to read files, from the options that a part of the index was last brought up to date with."""
Span = tuple[float | None, float | None]
"""Start and end in seconds; ``None`` where a segment has no time."""


class OfContents(Artefact):
    """Made of contents that are in the index. A content has a place for each document of it: they are tried in turn
    until one holds it; then `made` gets what was computed, else `failed` the reason.

    Other processes may write meanwhile: what they change is read as it is then, or left for the next run.
    """

    page = 2048
    """Contents that are looked up at a time."""
    trusts_times = False
    """Whether a file whose size and time are as they were need not be read to know that it holds what it held."""

    def __init__(
        self,
        index: IndexDirectory,
        space_id: int,
        prepare: Callable[[Any], npt.NDArray[Any]],
        options: OptionsOf,
    ) -> None:
        super().__init__()
        self._index, self._space_id = index, space_id
        self._prepare = prepare
        self._options = options
        self._open: dict[ContentKey, PendingContent] = {}
        self._places: dict[tuple[int, str], PendingContent] = {}
        self._failed: dict[int, tuple[str, bool]] = {}
        self._archives: dict[tuple[int, str], str] = {}
        self._next = Batch(space_id)

    @abstractmethod
    def lacking(self) -> Lacking:
        """Which contents."""

    def reader(self, options: DecodeOptions) -> Reader:
        """What reads them."""
        return Reader(self._prepare, options)

    @abstractmethod
    def made(self, content: PendingContent, rows: Rows) -> str | None:
        """Adds what was computed to ``self._next``; may return a reason why that cannot be."""

    @abstractmethod
    def failed(self, content: PendingContent, reason: str, *, lasting: bool) -> None:
        """It could not be read at any place. ``lasting``: its content is at fault."""

    def batch(self) -> Batch:
        """See `Artefact.batch`."""
        return self._next

    def committed(self, batch: Batch, done: Committed) -> None:
        """See `Artefact.committed`."""
        self._next, self.rows = Batch(self._space_id), 0

    def rounds(self) -> Iterator[Round]:
        """See `Artefact.rounds`."""
        files = _Files(self._index, self._options, trusts_times=self.trusts_times)
        after, lacking = 0, self.lacking()
        while contents := lacking.contents(self._index.catalogue, after, self.page):
            after = contents[-1].id
            yield from self._read(contents, files)

    def _read(self, contents: Sequence[PendingContent], files: _Files) -> Iterator[Round]:
        places = {content.id: files.places(content) for content in contents}
        left = [content for content in contents if places[content.id]]
        while left:
            wanted = [(content, places[content.id].pop(0)) for content in left]
            self._open = {(content.hash, content.decoding): content for content in left}
            self._places = {(place.root.id, place.path): content for content, place in wanted}
            plan, reasons = files.plan(wanted)
            self._failed = {content_id: (reason, False) for content_id, reason in reasons.items()}
            for options, work in plan.items():
                yield Round(work, self.reader(options), self._known)
            for content, place in wanted:
                self._failed.setdefault(content.id, (self._unmet(place), False))
            left = list(self._open.values())
            for content in left:
                if not places[content.id]:
                    reason, lasting = self._failed[content.id]
                    self.failed(content, reason, lasting=lasting)
            left = [content for content in left if places[content.id]]

    def _known(self, item: ContentKey) -> KnownContent | None:
        """Samples of an archive that lack nothing, and files that hold something else now, are not decoded."""
        return None if item in self._open else (0, "image")

    def _unmet(self, place: Place) -> str:
        archive = archive_of(place.path) or ""
        return self._archives.get((place.root.id, archive), "it is no longer in its archive")

    def finish(self, item: Finished, rows: Rows) -> None:
        """See `Artefact.finish`."""
        self._check_place(item)
        content = self._open.get(item.item)
        if content is None:
            return
        reason = self.made(content, rows)
        if reason is None:
            del self._open[item.item]
            self.rows += len(rows)
        else:
            self._failed[content.id] = (reason, True)

    def take(self, message: Known | Twin | Failed | ArchiveEnd) -> None:
        """See `Artefact.take`."""
        place = (message.work.scope.root.id, message.work.file.path)
        if isinstance(message, ArchiveEnd):
            if message.problem:
                self._archives[place] = f"it was not met in its archive ({message.problem})"
            return
        if isinstance(message.work, ArchiveWork):
            if isinstance(message, Failed):
                self._archives[place] = message.reason
            return
        if isinstance(message, Failed) and message.item is None:
            if place in self._places:
                self._failed[self._places[place].id] = (message.reason, False)
            return
        if isinstance(message, Failed) and message.item in self._open:
            self._failed[self._open[message.item].id] = (message.reason, message.lasting)
        self._check_place(message)

    def _check_place(self, message: Finished | Known | Twin | Failed) -> None:
        """Where something else lies now than what was looked for, another place may still have that."""
        assert message.work is not None
        content = self._places.get((message.work.scope.root.id, message.work.file.path))
        if content is not None and message.item != (content.hash, content.decoding):
            self._failed[content.id] = (CHANGED, False)


class _Files:
    """Knows with which options each part of the index was brought up to date last."""

    def __init__(self, index: IndexDirectory, options: OptionsOf, *, trusts_times: bool) -> None:
        self._index, self._trusts_times = index, trusts_times
        self._kept = [(scope, options(kept)) for scope, kept in kept_scopes(index)]
        self._usual = options({})

    def places(self, content: PendingContent) -> list[Place]:
        """Where to look for a content, the likeliest place first."""
        if len(content.places) == 1:
            return list(content.places)
        return sorted(
            content.places,
            key=lambda place: (place.root.is_dataset or not self._is_untouched(place), not place.sidecars),
        )

    def plan(
        self, wanted: Iterable[tuple[PendingContent, Place]]
    ) -> tuple[dict[DecodeOptions, list[Work | ArchiveWork]], dict[int, str]]:
        """What to read for contents at the given places, and for the others, by id, why they cannot be read."""
        readings: dict[DecodeOptions, list[Work | ArchiveWork]] = {}
        archives: set[tuple[int, str]] = set()
        reasons: dict[int, str] = {}
        for content, place in wanted:
            options = self._options(place)
            work = self._work(content, place, options)
            if isinstance(work, str):
                reasons[content.id] = work
                continue
            if isinstance(work, ArchiveWork):
                if (place.root.id, work.file.path) in archives:
                    continue
                archives.add((place.root.id, work.file.path))
            readings.setdefault(options, []).append(work)
        return readings, reasons

    def _work(self, content: PendingContent, place: Place, options: DecodeOptions) -> Work | ArchiveWork | str:
        if place.root.is_dataset:
            return IMPORTED
        folder = self._index.root_path(place.root)
        scope = Scope(place.root, folder, "")
        archive = archive_of(place.path)
        if archive is not None and (folder / archive).is_file():
            file = _entry(folder, archive)
            if isinstance(file, str):
                return file
            inside = shown_by(place.path)
            if inside is None or content.decoding != inside.signature(options):
                return OTHER_VERSION
            return ArchiveWork(scope, file, archive_decoding(options))
        file = _entry(folder, place.path)
        if isinstance(file, str):
            return file
        if file.size != place.size:
            return CHANGED
        decoder = decoder_for(Path(place.path))
        if decoder is None or decoder.signature(options) != content.decoding:
            return OTHER_VERSION
        is_known = self._trusts_times and file.mtime_ns == place.mtime_ns
        file = file._replace(sidecars=place.sidecars)
        return Work(scope, file, decoder, content.decoding, None, hash=content.hash if is_known else None)

    def _options(self, place: Place) -> DecodeOptions:
        for scope, options in self._kept:
            if scope.root.id == place.root.id and (not scope.below or f"{place.path}/".startswith(f"{scope.below}/")):
                return options
        return self._usual

    def _is_untouched(self, place: Place) -> bool:
        try:
            status = (self._index.root_path(place.root) / place.path).stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (place.size, place.mtime_ns)


def _entry(folder: Path, path: str) -> FileEntry | str:
    """The file as it lies there now, or why there is none."""
    try:
        status = (folder / path).stat()
    except FileNotFoundError:
        return (
            "it is no longer there"
            if is_remote(folder) or os.path.lexists(folder)
            else f"the folder {folder} is not there"
        )
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    if not stat.S_ISREG(status.st_mode):
        return "it is no longer a file"
    return FileEntry(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def rows_of_segments(segments: Sequence[StoredSegment], rows: Rows) -> list[int] | str:
    """For each segment the number of the row that shows it, or why that cannot be said."""
    chosen = match([(one.start_s, one.end_s) for one in segments], [(piece.start_s, piece.end_s) for piece, _ in rows])
    if chosen is None:
        return f"it gives {len(rows)} pictures now, and gave {len(segments)} when it was indexed"
    return chosen


def match(stored: Sequence[Span], decoded: Sequence[Span]) -> list[int] | None:
    """For each stored segment the number of the decoded one that shows it; ``None`` where that cannot be said.

    The same file, decoder and settings give the same segments. Where a video is cut otherwise now (it was indexed with
    another interval, or by another version of a library), each segment is shown by the frame whose moment overlaps it
    most, or lies nearest to it.
    """
    if list(stored) == list(decoded):
        return list(range(len(stored)))
    if not decoded or any(time is None for span in (*stored, *decoded) for time in span):
        return list(range(len(stored))) if len(stored) == len(decoded) else None
    starts, ends = (np.array([span[side] for span in decoded], dtype=float) for side in (0, 1))
    chosen = []
    for span in stored:
        start, end = float(span[0] or 0.0), float(span[1] or 0.0)
        overlap = np.minimum(ends, end) - np.maximum(starts, start)  # below 0: how far apart they are
        chosen.append(int(np.argmax(overlap)))
    return chosen
