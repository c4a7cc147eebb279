"""What a run of indexing has to do: the files on disk compared with the catalogue, before anything is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mmsearch.core.errors import MediaError, UsageError
from mmsearch.core.modalities import has_pictures
from mmsearch.core.types import NOTHING_BESIDE, Beside, Modality, Skip
from mmsearch.media import DECODERS
from mmsearch.media.archive import archive_decoding
from mmsearch.media.base import DecodeOptions, Decoder
from mmsearch.media.formats import SOUND, VIDEO, suffixes_of
from mmsearch.media.live_photos import is_live_photo
from mmsearch.sources import (
    ARCHIVE_SUFFIX,
    CLIP_SUFFIXES,
    IGNORE_FILE,
    SIDECAR_SUFFIXES,
    SUBTITLES,
    FileEntry,
    FolderSeen,
    Unreadable,
    WalkRules,
    clip_stamp,
    fetched,
    is_left_out,
    is_remote,
    located,
    walk,
)
from mmsearch.store.local.catalogue import FolderIdentity, KnownDocument, Root
from mmsearch.store.local.directory import IndexDirectory

CAPTIONED = frozenset(suffix for decoder in DECODERS if has_pictures(decoder.modality) for suffix in decoder.suffixes)
"""Photos and videos: what has their name and lies beside them may be about them."""

SUBTITLED = suffixes_of(VIDEO, SOUND)
"""Videos and recordings: subtitles of the same name beside them belong to them."""


@dataclass(frozen=True)
class Scope:
    """A part of the disk that a run looks at: all of ``root`` at or below the relative path ``below``."""

    root: Root
    folder: Path
    below: str


@dataclass(frozen=True, slots=True)  # slots: there may be a million of them
class Work:
    """A file that is new or may have changed, so it must be read."""

    scope: Scope
    file: FileEntry
    decoder: Decoder
    decoding: str
    previous: KnownDocument | None
    beside: Beside = NOTHING_BESIDE
    archive: ArchiveWork | None = None
    """What it is a sample of."""
    hash: bytes | None = None
    """Of its content, where size and time say that it has not changed since that was known."""
    content: tuple[int, Modality] | None = None
    """What it holds, where that is known: then only what lies beside it has changed."""

    @property
    def path(self) -> Path:
        """Where the file lies now."""
        return self.scope.folder / self.file.path


@dataclass(frozen=True)
class ArchiveWork:
    """An archive that is new or has changed, or was not read whole: each of its samples becomes a `Work`."""

    scope: Scope
    file: FileEntry
    decoding: str

    @property
    def path(self) -> Path:
        """Where the archive lies now."""
        return self.scope.folder / self.file.path


@dataclass
class Plan:
    """What the walk found. ``gone`` are documents (id, root id, path) whose files were not met, ``absent`` those among
    them of which that was known already; ``back`` are absent documents whose files are there as they were.
    """

    work: list[Work | ArchiveWork] = field(default_factory=list)
    unchanged: int = 0
    skipped: list[Skip] = field(default_factory=list)
    gone: list[tuple[int, int, str]] = field(default_factory=list)
    absent: list[tuple[int, int, str]] = field(default_factory=list)
    back: list[int] = field(default_factory=list)
    folders: dict[int, dict[str, FolderIdentity]] = field(default_factory=dict)
    """By root: the folders at and above files that were met."""
    listed: dict[int, set[str]] = field(default_factory=dict)
    """By root: the folders whose files were all met or passed over."""
    last_id: int = 0
    """Of the newest document before the run."""
    forgotten: list[tuple[int, str]] = field(default_factory=list)
    """Files skipped earlier, as (root id, path), that were not met."""
    whole: set[tuple[int, str]] = field(default_factory=set)
    """Archives, as (root id, path), that have not changed since they were read whole."""
    forgotten_archives: list[tuple[int, str]] = field(default_factory=list)


def resolve_scopes(index: IndexDirectory, paths: Sequence[Path]) -> list[Scope]:
    """Turns what the user named into scopes; new roots are registered, roots inside a new one become part of it.

    Raises:
        UsageError: a path does not exist.
    """
    paths = [located(path) for path in paths]
    missing = {path: found for path in paths if (found := _missing_scopes(index, path))}
    wanted = _outermost([_existing(path) for path in paths if path not in missing])
    for path in wanted:  # a later path may absorb the root of an earlier one, so scopes are settled after all roots
        _scope(index, path)
    lost = [_missing_scopes(index, path) for path in missing]
    return [_scope(index, path) for path in wanted] + [scope for scopes in lost for scope in scopes]


def _missing_scopes(index: IndexDirectory, path: Path) -> list[Scope]:
    """For a path where nothing lies any more: the parts of the index that lay there."""
    if is_there(path.expanduser()):
        return []
    place = path if is_remote(path) else Path(os.path.normpath(path.expanduser().absolute()))
    found: list[Scope] = []
    for root in index.catalogue.roots():
        folder = index.root_path(root)
        if root.is_dataset:
            continue
        if place == folder or place in folder.parents:
            found.append(Scope(root, folder, ""))
        elif folder in place.parents:
            below = place.relative_to(folder).as_posix()
            if next(index.catalogue.documents_below(root.id, below), None) is not None:
                found.append(Scope(root, folder, below))
    return found


def _existing(path: Path) -> Path:
    if is_remote(path):
        if not is_there(path):
            raise UsageError(f"nothing lies at {path}: check the spelling")
        return path
    given, path = path, path.expanduser()
    real = os.path.realpath(path)
    shown = os.fsencode(real).decode("utf-8", "backslashreplace")
    if not os.path.exists(real):  # noqa: PTH110  (Path.exists raises where it may not look)
        named = os.fsencode(given).decode("utf-8", "backslashreplace")
        raise UsageError(f"there is no file or folder {named}, or it lies where you may not look: check the spelling")
    if shown != real:
        raise UsageError(f"the path {shown} is not valid UTF-8: rename the folder or file to index it")
    return Path(real)


def resolve_changes(index: IndexDirectory, paths: Sequence[Path], rules: WalkRules) -> list[Scope]:
    """Scopes of places where something changed, may be to nothing: those that are to be kept up to date.

    What may be about a photo beside it, or subtitles, a photo that has such beside it, and an ignore file, which rules
    a folder: for them, the folder is looked at.
    """
    kept = [scope for scope, _ in kept_scopes(index)]
    found: dict[Path, Scope] = {}
    for path in paths:
        place = path.parent if path.name == IGNORE_FILE or _concerns_others(path) else path
        for scope in kept:
            outer = scope.folder / scope.below
            if outer not in (place, *place.parents):
                continue
            below = place.relative_to(scope.folder).as_posix()
            if below == ".":
                below = ""
            if not below or not is_left_out(scope.folder, rules, below):
                found[place] = Scope(scope.root, scope.folder, below)
    return [found[place] for place in _outermost(list(found))]


def _concerns_others(path: Path) -> bool:
    """Whether it decides about a file beside it: what may be about that; or a photo or video with which its text or
    clip turns from a document of its own into a part of it, and back when it goes.
    """
    suffix = path.suffix.lower()
    if suffix in (*SIDECAR_SUFFIXES, *CLIP_SUFFIXES, *SUBTITLES):
        return True
    own = (path.with_name(path.name + ".txt"), *map(path.with_suffix, (".txt", *CLIP_SUFFIXES, ".MOV", ".MP4")))
    return suffix in CAPTIONED and any(map(os.path.lexists, own))


def _outermost(paths: Sequence[Path]) -> list[Path]:
    unique = list(dict.fromkeys(paths))
    return [path for path in unique if not any(other in path.parents for other in unique)]


def _scope(index: IndexDirectory, path: Path) -> Scope:
    for root in index.catalogue.roots():
        folder = index.root_path(root)
        if path == folder or folder in path.parents:
            below = path.relative_to(folder).as_posix()
            return Scope(root, folder, "" if below == "." else below)
    folder = path if path.is_dir() else path.parent
    with index.catalogue.transaction():
        name, is_relative = index.root_for(folder)
        inner = [root for root in index.catalogue.roots() if folder in index.root_path(root).parents]
        root = index.catalogue.add_root(name, is_relative=is_relative)
        for old in inner:
            prefix = index.root_path(old).relative_to(folder).as_posix()
            index.catalogue.absorb_root(old.id, root.id, prefix)
    return Scope(root, folder, "" if path == folder else path.name)


def make_plan(
    index: IndexDirectory,
    scopes: Sequence[Scope],
    rules: WalkRules,
    options: DecodeOptions,
    seen: Callable[[int], None] = lambda _: None,
    *,
    with_removed: bool = True,
) -> Plan:
    """Walks every scope and sorts what it meets; ``seen`` is called with the number of files met so far.

    Without ``with_removed``, what was taken out of the index by hand stays out.
    """
    plan = Plan(last_id=index.catalogue.last_document())
    files = 0
    for scope in scopes:
        sorter = _Sorter(index, scope, options, plan)
        removed = () if with_removed else tuple(index.catalogue.removed_paths(scope.root.id))
        for met, known in _side_by_side(index, scope, rules, plan, removed):
            files += 1
            if met.path.endswith(ARCHIVE_SUFFIX):
                sorter.sort_archive(met, known)
            else:
                sorter.sort(met, known[0] if known else None)
            if files % 500 == 0:
                seen(files)
        sorter.forget_archives()
    seen(files)
    return plan


def _side_by_side(
    index: IndexDirectory, scope: Scope, rules: WalkRules, plan: Plan, removed: Sequence[str]
) -> Iterator[tuple[FileEntry, list[KnownDocument]]]:
    """Pairs files with the documents known of them, one pass over both, as both come in the same order.

    An archive comes with the documents of all its samples, any other file with one at most. Documents below a
    folder that could not be read are neither met nor gone: nothing is known of them now.
    """
    known = index.catalogue.documents_below(scope.root.id, scope.below)
    document = next(known, None)
    unknowable: list[str] = []
    not_met: list[KnownDocument] = []
    folders: dict[str, FolderSeen] = {}
    last_folder: str | None = None
    can_be_walked = is_there(scope.folder)
    clips = partial(_is_clip, index, scope)
    found = walk(scope.folder, rules, scope.below, CAPTIONED, folders, clips, subtitled=SUBTITLED)
    for met in found if can_be_walked else ():
        if removed and any(met.path == path or met.path.startswith(path + "/") for path in removed):
            continue
        while document is not None and document.path < met.path:
            not_met.append(document)
            document = next(known, None)
        if isinstance(met, Unreadable):
            plan.skipped.append(Skip(str(scope.folder / met.path), met.reason))
            unknowable.append(met.path + "/" if met.is_directory and met.path else met.path)
            continue
        own: list[KnownDocument] = []
        samples = met.path + "/" if met.path.endswith(ARCHIVE_SUFFIX) else None
        while document is not None and (document.path == met.path or (samples and _comes_up_to(document, samples))):
            (own if document.path.startswith(met.path) else not_met).append(document)
            document = next(known, None)
        folder = met.path.rpartition("/")[0]
        if folder != last_folder:
            last_folder = folder
            _remember_folders(plan.folders.setdefault(scope.root.id, {}), folders, folder)
        yield met, own
    not_met.extend(rest for rest in [document] if rest is not None)
    not_met.extend(known)
    plan.listed.setdefault(scope.root.id, set()).update(folders)
    for lost in not_met:
        if not any(lost.path.startswith(prefix) for prefix in unknowable):
            (plan.absent if lost.is_absent else plan.gone).append((lost.id, scope.root.id, lost.path))


def _is_clip(index: IndexDirectory, scope: Scope, photo: str, clip: str, status: os.stat_result) -> bool | None:
    """Looked up where it was found out before, else in the headers of both files. A photo that cannot be read, or was
    taken out of the index, stands for nothing.
    """
    known = index.catalogue.sidecars_of(scope.root.id, photo)
    if known is None and index.catalogue.is_left_out(scope.root.id, photo):
        return None
    stamps = (known or "").split("/")
    for verdict in (True, False):
        if clip_stamp(clip, status, verdict) in stamps:
            return verdict
    place = scope.folder / photo
    if is_remote(place):
        try:
            with fetched(place, FileEntry(photo, place.stat().st_size, 0, 0), [clip]) as copy:
                return is_live_photo(copy, copy.with_name(clip))
        except (MediaError, OSError):
            return None
    return is_live_photo(place, place.with_name(clip))


def _remember_folders(found: dict[str, FolderIdentity], seen: dict[str, FolderSeen], folder: str) -> None:
    """A folder in which a file was met, and those above it."""
    while folder not in found and folder in seen:
        found[folder] = FolderIdentity(*seen[folder][:3])
        folder = folder.rpartition("/")[0]


def _comes_up_to(document: KnownDocument, prefix: str) -> bool:
    """Whether a document comes before the end of those that start with ``prefix``."""
    return document.path < prefix or document.path.startswith(prefix)


class _Sorter:
    """Sorts the files of one scope into what has to be read and what has not changed."""

    def __init__(self, index: IndexDirectory, scope: Scope, options: DecodeOptions, plan: Plan) -> None:
        self._scope = scope
        self._plan = plan
        self._index = index
        self._archives = index.catalogue.archives_below(scope.root.id)
        self._archive_decoding = archive_decoding(options)
        self._decoders = {
            suffix: (decoder, decoder.signature(options)) for decoder in DECODERS for suffix in decoder.suffixes
        }

    def sort(self, met: FileEntry, known: KnownDocument | None) -> None:
        suffix = os.path.splitext(met.path)[1]  # noqa: PTH122  (a Path costs ten times as much, a million times)
        decoder, decoding = self._decoders.get(suffix.lower(), (None, ""))
        if decoder is None:
            reason = f"files of type {suffix} are not supported" if suffix else "it has no file suffix"
            if suffix.lower() in SUBTITLES:
                reason = "subtitles, and there is no video or recording of that name beside them"
            if suffix.lower() == ".xmp":
                reason = "no photo or video that it is about lies beside it"
            self._plan.skipped.append(Skip(str(self._scope.folder / met.path), reason))
            if known is not None:
                self._plan.gone.append((known.id, self._scope.root.id, known.path))
            return
        same = known is not None and (known.size, known.mtime_ns, known.decoding) == (met.size, met.mtime_ns, decoding)
        if known is None or not same or not self._is_whole(known):
            self._plan.work.append(Work(self._scope, met, decoder, decoding, known))
        elif known.sidecars != met.sidecars:
            content = (known.content_id, decoder.modality)
            self._plan.work.append(Work(self._scope, met, decoder, decoding, known, content=content))
        else:
            self._plan.unchanged += 1
            self._plan.back += [known.id] if known.is_absent else []

    def sort_archive(self, met: FileEntry, known: list[KnownDocument]) -> None:
        is_read = self._archives.pop(met.path, None) == (met.size, met.mtime_ns, self._archive_decoding)
        if is_read and all(map(self._is_whole, known)):
            self._plan.unchanged += len(known)
            self._plan.back += [document.id for document in known if document.is_absent]
            self._plan.whole.add((self._scope.root.id, met.path))
        else:
            self._plan.work.append(ArchiveWork(self._scope, met, self._archive_decoding))

    def _is_whole(self, known: KnownDocument) -> bool:
        """Whether an absent document can come back as it is: the index may have another encoder by now."""
        if not known.is_absent:
            return True
        return self._index.catalogue.has_all_vectors(known.content_id, self._index.space().id)

    def forget_archives(self) -> None:
        """Those that were not met, and are not there."""
        for path in self._archives:
            if not lies_there(self._scope.folder, path):
                self._plan.forgotten_archives.append((self._scope.root.id, path))


def settle_skipped(index: IndexDirectory, scopes: Sequence[Scope], plan: Plan, limits: str) -> None:
    """Takes files out of the work that were unreadable last time and have not changed a bit since.

    ``limits`` stands for the settings that decide what is refused; the reasons of last time hold only for them.
    """
    for scope in scopes:
        remembered = index.catalogue.skipped_below(scope.root.id, scope.below)
        if not remembered:
            continue
        keep: list[Work | ArchiveWork] = []
        for work in plan.work:
            old = remembered.pop(work.file.path, None) if work.scope is scope else None
            if old is not None and old[:4] == [*work.file[1:4], work.decoding + limits]:
                plan.skipped.append(Skip(str(work.path), old[4]))
            else:
                keep.append(work)
        plan.work = keep
        for path, old in remembered.items():
            archive = archive_of(path) or path
            if (scope.root.id, archive) in plan.whole:
                plan.skipped.append(Skip(str(scope.folder / path), old[4]))
            elif not lies_there(scope.folder, path):
                plan.forgotten.append((scope.root.id, path))


def archive_of(path: str) -> str | None:
    """The archive that a sample's path leads through, or ``None`` for the path of a file."""
    before, inside, _ = path.partition(ARCHIVE_SUFFIX + "/")
    return before + ARCHIVE_SUFFIX if inside else None


def lies_there(folder: Path, path: str) -> bool:
    """Whether there is such a file, or the archive that holds it."""
    archive = archive_of(path)
    if is_remote(folder):
        return (folder / path).is_file() or (archive is not None and (folder / archive).is_file())
    return os.path.lexists(folder / path) or (archive is not None and os.path.isfile(folder / archive))  # noqa: PTH113


def is_there(path: Path) -> bool:
    """Whether something lies at a path, be it a link that leads nowhere.

    Raises:
        UsageError: it lies in a store that cannot be asked.
    """
    if not is_remote(path):
        return os.path.lexists(path)
    try:
        return path.exists()
    except OSError as error:
        raise UsageError(f"{path} cannot be looked at: {error.strerror or error}") from error


def kept_scopes(index: IndexDirectory) -> list[tuple[Scope, dict[str, Any]]]:
    """All that is to be kept up to date, with the options that each part was last indexed with."""
    roots = {root.id: root for root in index.catalogue.roots()}
    return [
        (Scope(roots[root_id], index.root_path(roots[root_id]), below), options)
        for root_id, below, options in index.catalogue.kept_scopes()
    ]
