"""From contents to the files that hold them, and the decoder that reads each again as it was read before."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mmsearch.ingest import IngestOptions
from mmsearch.media import DECODERS
from mmsearch.media.archive import archive_decoding, shown_by
from mmsearch.models.encoders.base import Encoder
from mmsearch.pipeline.plan import ArchiveWork, Scope, Work, archive_of, kept_scopes
from mmsearch.sources import FileEntry
from mmsearch.store.local.catalogue import KnownDocument
from mmsearch.store.local.catalogue.coverage import PendingContent, Place
from mmsearch.store.local.directory import IndexDirectory

CHANGED = "it changed since it was indexed: run `mmsearch index` on it first"
OTHER_VERSION = "this version of mmsearch reads it differently: run `mmsearch index` on it first"
IMPORTED = "its vectors were imported, there is no file to read"


@dataclass
class Reading:
    """Files that are read with the same options."""

    options: IngestOptions
    work: list[Work | ArchiveWork] = field(default_factory=list)


class Files:
    """Knows with which options each part of the index was brought up to date last."""

    def __init__(self, index: IndexDirectory, encoder: Encoder) -> None:
        self._index = index
        self._encoder = encoder
        self._kept = [(scope, IngestOptions.from_kept(options)) for scope, options in kept_scopes(index)]
        self._decoders = {suffix: decoder for decoder in DECODERS for suffix in decoder.suffixes}

    def places(self, content: PendingContent) -> list[Place]:
        """Where to look for a content, the likeliest place first."""
        if len(content.places) == 1:
            return list(content.places)
        return sorted(content.places, key=lambda place: place.root.is_dataset or not self._is_untouched(place))

    def plan(self, wanted: Iterable[tuple[PendingContent, Place]]) -> tuple[list[Reading], dict[int, str]]:
        """What to read for contents at the given places, and for the others, by id, why they cannot be read."""
        readings: dict[tuple[float, float], Reading] = {}
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
            key = (options.max_megapixels, options.frame_interval_s)
            readings.setdefault(key, Reading(options)).work.append(work)
        return list(readings.values()), reasons

    def _work(self, content: PendingContent, place: Place, options: IngestOptions) -> Work | ArchiveWork | str:
        if place.root.is_dataset:
            return IMPORTED
        folder = self._index.root_path(place.root)
        scope = Scope(place.root, folder, "")
        decode = options.decode_options(self._encoder)
        archive = archive_of(place.path)
        if archive is not None and (folder / archive).is_file():
            file = _entry(folder, archive)
            if isinstance(file, str):
                return file
            inside = shown_by(place.path)
            if inside is None or content.decoding != inside.signature(decode):
                return OTHER_VERSION
            return ArchiveWork(scope, file, archive_decoding(decode))
        file = _entry(folder, place.path)
        if isinstance(file, str):
            return file
        if file.size != place.size:
            return CHANGED
        decoder = self._decoders.get(Path(place.path).suffix.lower())
        if decoder is None or decoder.signature(decode) != content.decoding:
            return OTHER_VERSION
        known = KnownDocument(
            place.document_id, place.path, place.size, place.mtime_ns, content.decoding, content.id, ""
        )
        return Work(scope, file, decoder, content.decoding, known)

    def _options(self, place: Place) -> IngestOptions:
        for scope, options in self._kept:
            if scope.root.id == place.root.id and (not scope.below or f"{place.path}/".startswith(f"{scope.below}/")):
                return options
        return IngestOptions()

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
        return "it is no longer there" if os.path.lexists(folder) else f"the folder {folder} is not there"
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    if not stat.S_ISREG(status.st_mode):
        return "it is no longer a file"
    return FileEntry(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
