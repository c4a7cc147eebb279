"""Walking folders: every file that counts, in order, with its size, its times and its sidecars."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, TypeAlias

from mmsearch.core.regular import NOT_REGULAR
from mmsearch.sources.base import ARCHIVE_SUFFIX, SUBTITLES, FileEntry, Unreadable, WalkRules, reason_of
from mmsearch.sources.ignoring import IGNORE_FILE, Ignore
from mmsearch.sources.remote import RemoteEntry, is_remote, scan
from mmsearch.sources.sidecars import CLIP_SUFFIXES, Sidecars, clip_stamp, clips_of, joined, stamp_of
from mmsearch.sources.sidecars import SUFFIXES as SIDECAR_SUFFIXES

ALWAYS_IGNORED = frozenset(
    {
        "node_modules", "__MACOSX", "__pycache__", "lost+found",
        "$RECYCLE.BIN", "$Recycle.Bin", "$recycle.bin", "RECYCLER", "RECYCLED", "System Volume Information",  # Windows
        "@eaDir", "#recycle", "#snapshot", "@tmp", "@sharesnap",  # Synology
        "@Recycle", "@Recently-Snapshot", "@__thumb", ".@__thumb", "@Transcode",  # QNAP
        "~snapshot", ".snapshot", ".snapshots", ".zfs", ".recycle", ".Recycle.Bin",  # NetApp, btrfs, ZFS, Samba
        ".Trash", ".Trashes", ".Spotlight-V100", ".fseventsd", ".TemporaryItems", ".DocumentRevisions-V100",  # macOS
        ".AppleDouble", ".AppleDB", ".thumbnails", ".sync-trash", ".stversions",  # netatalk, desktops, sync programs
    }
)  # fmt: skip
"""Names of folders in which other programs keep what nobody looks for: recycle bins, snapshots, thumbnails, caches.
Those with a dot matter where hidden folders are indexed."""
ALWAYS_IGNORED_PATTERNS = (".Trash-*", "found.[0-9][0-9][0-9]")
"""The same, where the name holds a number: of a user (freedesktop.org), of a check of the disk (Windows)."""


def is_system_folder(name: str) -> bool:
    """Whether a name is one of `ALWAYS_IGNORED` or fits one of `ALWAYS_IGNORED_PATTERNS`."""
    if name in ALWAYS_IGNORED:
        return True
    return name.startswith((".T", "found.")) and any(fnmatchcase(name, one) for one in ALWAYS_IGNORED_PATTERNS)


MAX_SIDECAR_BYTES = 65_536
"""A longer text beside a photo is a text of its own."""
_63_BITS = (1 << 63) - 1
_BESIDE = (*SIDECAR_SUFFIXES, *CLIP_SUFFIXES)


IsClip = Callable[[str, str, os.stat_result], bool | None]
"""Whether a video is a photo's clip, by the path of the photo relative to the root, and the name and state of the video
beside it; ``None``: not to be said now, so it is a file of its own."""


class FolderSeen(NamedTuple):
    """A folder that a walk has listed: where it lies (``device`` and ``inode``, 63 bits at most), ``is_mount`` when
    the folder above lies on another device, and how many ``entries`` it has, whether they count or not.
    """

    device: int
    inode: int
    is_mount: bool
    entries: int


Entry: TypeAlias = "os.DirEntry[str] | RemoteEntry"


class _Below(NamedTuple):
    """A folder to walk next."""

    directory: Path
    relative: str
    ignore: Ignore


def walk(
    root: Path, rules: WalkRules, below: str = "", captioned: frozenset[str] = frozenset(),
    folders: dict[str, FolderSeen] | None = None, is_clip: IsClip | None = None, *,
    subtitled: frozenset[str] = frozenset(),
) -> Iterator[FileEntry | Unreadable]:  # fmt: skip
    """Files of ``root`` (at or below the relative path ``below``), ascending by path in code point order.

    That order is the catalogue's, so both can be compared in one pass without holding either. Symbolic links
    to files count as files. Links to folders are followed only out of the root, and only once: what lies in the
    root is met under its own name, and a loop ends where it starts.

    A file whose suffix is in ``captioned`` may have sidecars in the same folder (`mmsearch.sources.sidecars`), which
    are not met as files of their own. So are subtitles of one whose suffix is in
    ``subtitled``: ``film.srt``, ``film.mp4.srt``, ``film.de.srt``, ``film.de.forced.srt``.

    ``is_clip`` says whether a video is the clip of a photo that has its name (a Live Photo): then it is not met either.

    ``folders`` takes what was seen of each folder that could be listed, by its path relative to the root.
    """
    start = root / below if below else root
    try:
        ignore = Ignore(rules, root, below)
    except OSError as error:
        yield Unreadable(below, _ignore_reason(error), is_directory=True)
        return
    try:
        is_folder = _is_folder(start)
    except OSError as error:
        yield Unreadable(below, reason_of(error), is_directory=True)
        return
    if not is_folder:
        try:
            status = start.stat()
        except FileNotFoundError:
            if not below:
                yield Unreadable(below, "there is no such folder", is_directory=True)
            return
        except OSError as error:
            yield Unreadable(below, reason_of(error), is_directory=False)
            return
        if not stat.S_ISREG(status.st_mode):
            yield Unreadable(below, NOT_REGULAR, is_directory=False)
            return
        stamps = _sidecars_in(start.parent, below, captioned, is_clip, subtitled).get(start.name, "")
        yield FileEntry(below, status.st_size, status.st_mtime_ns, status.st_ctime_ns, stamps)
        return
    yield from _Walker(root, rules, captioned, folders, is_clip, subtitled).walk(start, below, ignore)


def is_left_out(root: Path, rules: WalkRules, below: str) -> bool:
    """Whether a walk of the whole root would leave out what lies at ``below``, or never come there."""
    parts = below.split("/")
    for depth in range(1, len(parts) + 1):
        path, name = "/".join(parts[:depth]), parts[depth - 1]
        place = root / path
        is_directory = depth < len(parts) or _is_folder(place)
        if (name.startswith(".") and not rules.hidden) or is_system_folder(name):
            return True
        with contextlib.suppress(OSError):  # an ignore file that cannot be read: the walk says so
            if Ignore(rules, root, path).matches(path, is_directory):
                return True
        if is_directory and _is_index(str(place)):
            return True
        if is_directory and place.is_symlink():
            return True
    return False


class _Walker:
    """One walk: remembers which folders were entered through links."""

    def __init__(
        self, root: Path, rules: WalkRules, captioned: frozenset[str], folders: dict[str, FolderSeen] | None,
        is_clip: IsClip | None, subtitled: frozenset[str],
    ) -> None:  # fmt: skip
        self._is_clip = is_clip
        self._captioned, self._subtitled = captioned, subtitled
        self._folders = folders
        self._real_root = os.path.realpath(root)
        self._hidden = rules.hidden
        self._linked: set[tuple[int, int]] = set()

    def walk(self, directory: Path, relative: str, ignore: Ignore) -> Iterator[FileEntry | Unreadable]:
        """Depth first with a stack of its own: folders may be nested deeper than Python calls may be."""
        open_folders = [self._folder(directory, relative, ignore)]
        while open_folders:
            met = next(open_folders[-1], None)
            if met is None:
                open_folders.pop()
            elif isinstance(met, _Below):
                open_folders.append(self._folder(*met))
            else:
                yield met

    def _folder(self, directory: Path, relative: str, ignore: Ignore) -> Iterator[FileEntry | Unreadable | _Below]:
        """What lies in one folder, sorted; its subfolders stand for what lies in them."""
        try:
            entries = sorted(_scan(directory), key=_sort_key)
        except OSError as error:
            yield Unreadable(_shown(relative), reason_of(error), is_directory=True)
            return
        self._see(directory, relative, len(entries))
        try:
            if not is_remote(directory) or any(entry.name == IGNORE_FILE for entry in entries):
                ignore = ignore.with_file_in(directory, relative)
        except OSError as error:
            yield Unreadable(_shown(relative), _ignore_reason(error), is_directory=True)
            return
        prefix = relative + "/" if relative else ""
        entries = [entry for entry in entries if self._counts(entry, prefix, ignore)]
        sidecars, captions = _sidecars(entries, prefix, self._captioned, self._is_clip, self._subtitled)
        for entry in entries:
            path = prefix + entry.name
            if _is_directory(entry):
                if _is_index(entry.path):
                    continue  # one of ours, kept beside the photos
                refusal = self._refusal_of_link(entry)
                if refusal is None:
                    yield _Below(directory / entry.name, path, ignore)
                else:
                    yield Unreadable(_shown(path), refusal, is_directory=False)
            elif entry.name not in captions:
                yield _file(entry, path, sidecars.get(entry.name, ""))

    def _see(self, directory: Path, relative: str, entries: int) -> None:
        if self._folders is None:
            return
        if is_remote(directory):  # nothing says which folder it is: prefixes come and go with their objects
            self._folders[relative] = FolderSeen(0, 0, False, entries)
            return
        above = self._folders.get(relative.rpartition("/")[0]) if relative else None
        with contextlib.suppress(OSError):
            found = os.stat(directory)  # noqa: PTH116  (as fast as can be: there are many)
            device = above.device if above is not None else os.stat(directory / "..").st_dev  # noqa: PTH116
            is_mount = found.st_dev & _63_BITS != device & _63_BITS
            self._folders[relative] = FolderSeen(found.st_dev & _63_BITS, found.st_ino & _63_BITS, is_mount, entries)

    def _counts(self, entry: Entry, prefix: str, ignore: Ignore) -> bool:
        if (entry.name[0] == "." and not self._hidden) or is_system_folder(entry.name):
            return False
        return not (ignore.matches_anything and ignore.matches(prefix + entry.name, _is_directory(entry)))

    def _refusal_of_link(self, entry: Entry) -> str | None:
        if not entry.is_symlink():
            return None
        target = os.path.realpath(entry.path)
        if target == self._real_root or self._real_root.startswith(target.rstrip("/") + "/"):
            return "a link to a folder above itself (a loop)"
        if target.startswith(self._real_root.rstrip("/") + "/"):
            return "a link to a folder that is indexed under its own name"
        status = entry.stat()
        if (status.st_dev, status.st_ino) in self._linked:
            return "a link to a folder that another link has already led to"
        self._linked.add((status.st_dev, status.st_ino))
        return None


def _is_folder(place: Path) -> bool:
    return place.is_dir() if is_remote(place) else os.path.isdir(place)  # noqa: PTH112  (Path.is_dir raises in 3.10)


def _scan(folder: Path) -> Iterable[Entry]:
    return scan(folder) if is_remote(folder) else os.scandir(folder)


def _sidecars(
    entries: list[Entry], prefix: str, captioned: frozenset[str], is_clip: IsClip | None,
    subtitled: frozenset[str],
) -> tuple[dict[str, str], set[str]]:  # fmt: skip
    """Name of a file → what stands for what lies beside it; and the names of all that does."""
    stamps, owned = _descriptions(entries, prefix, captioned, is_clip)
    for name, entry in _subtitles(entries, subtitled):
        stamps[name] = joined(filter(None, (stamps.get(name), _stamp(entry.name, entry))))
        owned.add(entry.name)
    return stamps, owned


def _subtitles(entries: list[Entry], subtitled: frozenset[str]) -> Iterator[tuple[str, Entry]]:
    """Names of videos and recordings, each with a file of its subtitles, in the order of these."""
    possible = [entry for entry in entries if entry.name.lower().endswith(SUBTITLES) and not _is_directory(entry)]
    if not possible or not subtitled:
        return
    owners: dict[str, list[str]] = {}
    for entry in entries:
        stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122
        if suffix.lower() in subtitled:
            for called in (entry.name, stem):
                owners.setdefault(called, []).append(entry.name)
    for entry in possible:
        own = next((owners[called] for called in _subtitled_names(entry.name) if called in owners), [])
        if own and _stamp(entry.name, entry):
            yield from ((name, entry) for name in own)


def _descriptions(
    entries: list[Entry], prefix: str, captioned: frozenset[str], is_clip: IsClip | None
) -> tuple[dict[str, str], set[str]]:
    """The same, without subtitles."""
    beside = [entry for entry in entries if entry.name.lower().endswith(_BESIDE)] if captioned else []
    if not beside:
        return {}, set()
    possible = {entry.name: entry for entry in beside if _suffix(entry.name) in SIDECAR_SUFFIXES}
    clips = [entry for entry in beside if _suffix(entry.name) in CLIP_SUFFIXES] if is_clip is not None else []
    files = {entry.name: entry for entry in entries if _suffix(entry.name) in captioned and not _is_directory(entry)}
    known, seen = Sidecars(possible), dict[str, str]()
    stamps: dict[str, list[str]] = {}
    owned: set[str] = set()
    for file in files:
        names = list(known.of(file))
        for name in names:
            if name not in seen:
                seen[name] = _stamp(name, possible[name])
        if found := [name for name in names if seen[name]]:
            stamps[file] = [seen[name] for name in found]
            owned.update(found)
    owned.update(known.of_versions(stamps))
    for photo, clip in clips_of(files, (entry.name for entry in clips)).items():
        with contextlib.suppress(OSError):
            status = files[clip].stat()
            verdict = is_clip(prefix + photo, clip, status) if is_clip is not None else None
            if verdict is not None:
                stamps.setdefault(photo, []).append(clip_stamp(clip, status, verdict))
                owned.update([clip] if verdict else [])
    return {file: joined(some) for file, some in stamps.items()}, owned


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  (a Path costs ten times as much, and there are millions)


def _subtitled_names(name: str) -> list[str]:
    """What the video or recording may be called, without its suffix or with it, that subtitles of this name belong to:
    the longest name first.
    """
    found = [name.rpartition(".")[0]]
    for _ in range(2):
        stem, dot, _ = found[-1].rpartition(".")
        found += [stem] if dot else []
    return found


def subtitles_beside(path: Path) -> list[str]:
    """The names of the files of subtitles that belong to a video or recording, in their order."""
    own = {path.name, path.stem}
    try:
        names = sorted(name for name in os.listdir(path.parent) if name.lower().endswith(SUBTITLES))  # noqa: PTH208
    except OSError:
        return []
    return [name for name in names if own & set(_subtitled_names(name))]


def _sidecars_in(
    folder: Path, below: str, captioned: frozenset[str], is_clip: IsClip | None, subtitled: frozenset[str]
) -> dict[str, str]:
    """As `_sidecars`, of the folder in which only ``below`` counts."""
    try:
        entries = list(_scan(folder))
    except OSError:
        return {}
    prefix = below[: below.rfind("/") + 1]
    return _sidecars(entries, prefix, captioned, is_clip, subtitled)[0]


def _stamp(name: str, entry: Entry) -> str:
    """Changes when the sidecar does; empty when it is none."""
    try:
        status = entry.stat()
        name.encode()
    except (OSError, UnicodeEncodeError):
        return ""
    too_long = name.lower().endswith(".txt") and status.st_size > MAX_SIDECAR_BYTES
    return "" if too_long or not stat.S_ISREG(status.st_mode) else stamp_of(name, status)


def _file(entry: Entry, path: str, sidecars: str) -> FileEntry | Unreadable:
    try:
        path.encode()
    except UnicodeEncodeError:
        return Unreadable(_shown(path), "its name is not valid UTF-8: rename it", is_directory=False)
    try:
        status = entry.stat()
    except FileNotFoundError:
        return Unreadable(path, "a link that leads nowhere", is_directory=False)
    except OSError as error:
        return Unreadable(path, reason_of(error), is_directory=False)
    if not stat.S_ISREG(status.st_mode):
        return Unreadable(path, NOT_REGULAR, is_directory=False)
    return FileEntry(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, sidecars)


def _ignore_reason(error: OSError) -> str:
    return f"its {IGNORE_FILE} cannot be read ({reason_of(error)}), so nothing says what is to be left out there"


def _shown(path: str) -> str:
    """A path as it can be printed and stored: bytes that are not UTF-8 become escapes, others stay as they are."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _is_index(directory: str) -> bool:
    """``os.path`` and not ``Path.exists``, which raises in a folder that may not be entered."""
    return all(os.path.exists(os.path.join(directory, name)) for name in ("manifest.json", "catalogue.sqlite"))  # noqa: PTH110, PTH118


def _is_directory(entry: Entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that loops onto itself
        return False


def _sort_key(entry: Entry) -> str:
    """A folder sorts as its name with the slash that follows it in paths: so whole paths come out sorted."""
    return entry.name + "/" if entry.name.endswith(ARCHIVE_SUFFIX) or _is_directory(entry) else entry.name
