"""The last stage of indexing, where it is asked for: read what is written in pictures and video frames.

It comes after everything is embedded and committed: reading a picture takes many times as long as embedding it, so all
can be searched meanwhile, and an index that was made without it is completed without a vector being made again. What
has been read is committed every second or so; a run that is killed goes on from there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmsearch.core.errors import MediaError
from mmsearch.core.types import Progress, Skip
from mmsearch.media import decoder_for
from mmsearch.media.archive import ArchiveReading
from mmsearch.media.base import DecodedSegment, DecodeOptions
from mmsearch.media.ocr.base import TextReader
from mmsearch.pipeline.interrupts import interrupts_held
from mmsearch.pipeline.plan import Scope, archive_of
from mmsearch.store.local.catalogue.read_text import UnreadContent, put_reading, segments_of_content, unread_contents
from mmsearch.store.local.directory import IndexDirectory

COMMIT_SECONDS = 1.0


@dataclass
class TextRead:
    """What a run has read: pictures and videos, those whose text could not be had, and whether it was interrupted."""

    read: int = 0
    failed: list[Skip] = field(default_factory=list)
    interrupted: bool = False


def read_text_in_pictures(
    index: IndexDirectory,
    reader: TextReader,
    scopes: Sequence[Scope],
    options: DecodeOptions,
    progress: Callable[[Progress], None] = lambda _: None,
) -> TextRead:
    """Reads the pictures and videos of some scopes that ``reader`` has not looked at.

    A file that has changed or gone since it was indexed is left for the next run; one that fails is recorded with its
    reason and not tried again by this reader.
    """
    waiting: dict[int, list[tuple[Scope, UnreadContent]]] = {}
    for scope in scopes:
        if not scope.root.is_dataset:
            for one in unread_contents(index.catalogue, reader.name, scope.root.id, scope.below):
                waiting.setdefault(one.content_id, []).append((scope, one))
    return _Run(index, reader, options, progress, waiting).run()


@dataclass(frozen=True)
class _Found:
    content_id: int
    path: Path
    lines: dict[int, list[str]]
    problem: str | None


class _Run:
    def __init__(
        self, index: IndexDirectory, reader: TextReader, options: DecodeOptions, progress: Callable[[Progress], None],
        waiting: dict[int, list[tuple[Scope, UnreadContent]]],
    ) -> None:  # fmt: skip
        self._index, self._reader, self._progress = index, reader, progress
        self._options = DecodeOptions(
            # Decoders give twice the side that an encoder needs; what a reader asks for is what it can use.
            min_side=(reader.shorter_side + 1) // 2,
            max_megapixels=options.max_megapixels,
            frame_interval_s=options.frame_interval_s,
            cut_wide=False,  # or lines would be cut with the picture
            codec_threads=options.codec_threads,
        )
        self._waiting = waiting
        self._found: list[_Found] = []
        self._next_commit = time.monotonic() + COMMIT_SECONDS
        self.report = TextRead()

    def run(self) -> TextRead:
        total, done = len(self._waiting), 0
        try:
            for content_id, path, data in self._sources():
                self._progress(Progress("read", done, total, len(self.report.failed), str(path)))
                self._found.append(self._look(content_id, path, data))
                done += 1
                if time.monotonic() > self._next_commit:
                    self._commit()
        except KeyboardInterrupt:
            self.report.interrupted = True
        self._commit()
        return self.report

    def _sources(self) -> Iterator[tuple[int, Path, bytes | None]]:
        """Each content once: its id, where it lies, and its bytes if they come out of an archive."""
        archives: dict[Path, dict[str, int]] = {}
        for content_id, places in self._waiting.items():
            for scope, one in places:
                archive = archive_of(one.path)
                if archive is not None:
                    archives.setdefault(scope.folder / archive, {})[one.path[len(archive) + 1 :]] = content_id
                elif _is_unchanged(scope.folder / one.path, one):
                    yield content_id, scope.folder / one.path, None
                    break
        seen: set[int] = set()
        for archive_path, members in archives.items():
            for name, data in _members(archive_path):
                content = members.get(name)
                if content is not None and content not in seen:
                    seen.add(content)
                    yield content, archive_path / name, data

    def _look(self, content_id: int, path: Path, data: bytes | None) -> _Found:
        segments = segments_of_content(self._index.catalogue, content_id)
        lines: dict[int, list[str]] = {}
        problem = None
        try:
            decoder = decoder_for(path)
            if decoder is None:
                raise MediaError("its suffix is not one of a picture or video")
            frames, timed = 0, False
            for number, frame in enumerate(decoder.decode(path, self._options, data).segments):
                frames, timed = number + 1, timed or frame.start_s is not None
                if frame.image is not None and segments:
                    known = lines.setdefault(_segment_of(segments, number, frame), [])
                    known += [line for line in self._reader.read(frame.image) if line not in known]
            if not timed and frames < len(segments):  # a wide picture has a segment for each part, and is read whole
                every = list(dict.fromkeys(line for some in lines.values() for line in some))
                lines = {id_: every for id_, _ in segments}
        except MediaError as error:
            problem = str(error)
        except Exception as error:  # a reader's bug or a library's: recorded, the run goes on
            problem = f"its text could not be read ({type(error).__name__}: {error})"
        return _Found(content_id, path, lines, problem)

    def _commit(self) -> None:
        with interrupts_held():
            with self._index.catalogue.transaction():
                for one in self._found:
                    put_reading(self._index.catalogue, one.content_id, self._reader.name, one.lines, one.problem)
            self.report.read += sum(one.problem is None for one in self._found)
            self.report.failed += [Skip(str(one.path), one.problem) for one in self._found if one.problem is not None]
            self._found = []
        self._next_commit = time.monotonic() + COMMIT_SECONDS


def _segment_of(segments: Sequence[tuple[int, float | None]], number: int, frame: DecodedSegment) -> int:
    """The segment that a frame belongs to: by its time, else by its number.

    Frames are chosen by what small copies of them show, and those may differ a little from copies made of smaller
    pictures: there may be another number of frames now than of segments.
    """
    if frame.start_s is None or segments[0][1] is None:
        return segments[min(number, len(segments) - 1)][0]
    begun = [id_ for id_, start_s in segments if start_s is not None and start_s <= frame.start_s + 0.001]
    return begun[-1] if begun else segments[0][0]


def _is_unchanged(path: Path, one: UnreadContent) -> bool:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (one.size, one.mtime_ns)


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Pictures and videos of an archive; nothing where it is gone or cannot be read: the next run says so."""
    try:
        for member in ArchiveReading(archive).members():
            yield member.name, member.data
    except MediaError:
        return
