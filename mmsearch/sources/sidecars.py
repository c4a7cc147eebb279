"""Which files of a folder are about which others, by their names alone.

``photo.jpg`` may have ``photo.jpg.txt``, ``photo.txt`` (a caption), ``photo.jpg.xmp`` (darktable, digiKam),
``photo.xmp`` (Lightroom, Adobe), and the JSON of Google Takeout under any of the names that Takeout has given it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Container, Iterable, Iterator

STAMP_VERSION = 2
"""Of what is read from XMP and JSON; raised when more is, so that they are read again."""
SUFFIXES = (".txt", ".xmp", ".json")
CLIP_SUFFIXES = (".mov", ".mp4")
WITH_CLIPS = frozenset({".heic", ".heif", ".jpg", ".jpeg", ".dng"})
"""Of photos that come with a clip: Apple's, as they are, or as they were exported."""

_TAKEOUT = ".supplemental-metadata"
_TAKEOUT_MOST = 46
"""Takeout cuts the name of its JSON to 51 characters: 46 and ``.json``."""
_NUMBERED = re.compile(r"(.+)\((\d{1,4})\)")
_EDITED = re.compile(
    "(.+)-(?:edited|effects|smile|mix|bearbeitet|bewerkt|editado|ha editado|editat|modificato|modifi\u00e9|edytowane|"
    "\u7de8\u96c6\u6e08\u307f)",
    re.IGNORECASE,
)
"""What Google Photos appends to the name of an edited version, in the language of the account; it has no JSON."""
_VERSION = re.compile(r"(.+)_\d\d(\.[^.]+)")
"""How darktable names the XMP of a further version of ``a.jpg``: ``a_01.jpg.xmp``."""


class Sidecars:
    """The sidecars among the names of one folder."""

    def __init__(self, names: Collection[str]) -> None:
        self._by_stem: dict[tuple[str, str], str] = {}
        self._takeout: dict[tuple[str, str], str] = {}
        for name in names:
            stem, suffix = os.path.splitext(name)  # noqa: PTH122  (a Path costs ten times as much, and there are millions)
            suffix = suffix.lower()
            if suffix == ".json":
                base, number = _number_of(stem)
                self._takeout[base, number] = name
            elif suffix in SUFFIXES:
                self._by_stem[stem, suffix] = name

    def of(self, name: str) -> Iterator[str]:
        """Those of a photo or video, in the order in which they count."""
        stem, suffix = os.path.splitext(name)  # noqa: PTH122
        for kind in (".txt", ".xmp"):
            for key in (name, stem):
                if (key, kind) in self._by_stem:
                    yield self._by_stem[key, kind]
        if self._takeout:
            found = next((self._takeout[key] for key in _takeout_keys(stem, suffix) if key in self._takeout), None)
            if found is not None:
                yield found

    def of_versions(self, owned: Container[str]) -> Iterator[str]:
        """The XMP of further versions of photos that have one themselves."""
        for (stem, kind), name in self._by_stem.items():
            match = _VERSION.fullmatch(stem) if kind == ".xmp" else None
            if match is not None and match[1] + match[2] in owned:
                yield name


def _takeout_keys(stem: str, suffix: str) -> Iterator[tuple[str, str]]:
    """What the JSON of ``stem`` + ``suffix`` may be called, without ``.json``, with the number in brackets apart."""
    plain, number = _number_of(stem)
    titles = [(stem, ""), (plain, number)]
    for title, count in list(titles):
        if edited := _EDITED.fullmatch(title):
            titles += [(edited[1], count), _number_of(edited[1])]
    for title, count in dict.fromkeys(titles):
        whole = title + suffix + _TAKEOUT
        for end in range(len(whole), len(title + suffix) - 1, -1):
            if end <= _TAKEOUT_MOST or end in (len(whole), len(title + suffix)):
                yield whole[:end], count
        # A long title is itself cut, and so is the name of the photo, one character later.
        if len(title + suffix) >= _TAKEOUT_MOST:
            yield whole[:_TAKEOUT_MOST], count


def _number_of(stem: str) -> tuple[str, str]:
    """``photo(1)`` → ``photo`` and ``1``."""
    match = _NUMBERED.fullmatch(stem)
    return (match[1], match[2]) if match else (stem, "")


def stamp_of(name: str, status: os.stat_result) -> str:
    """Changes when the sidecar does, or what is read of its kind."""
    version = "" if name.lower().endswith(".txt") else f".{STAMP_VERSION}"
    return f"{name}:{status.st_size}:{status.st_mtime_ns}{version}"


def clips_of(photos: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """By name of a photo, the video that may be its clip: it is called so but for the suffix, as Apple does it."""
    clips = {stem: name for stem, suffix, name in map(_split, names) if suffix in CLIP_SUFFIXES}
    pairs: dict[str, str] = {}
    for stem, suffix, name in map(_split, sorted(photos)) if clips else ():
        if suffix in WITH_CLIPS and stem in clips:
            pairs[name] = clips.pop(stem)
    return pairs


def _split(name: str) -> tuple[str, str, str]:
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    return stem, suffix.lower(), name


def clip_stamp(name: str, status: os.stat_result, is_clip: bool) -> str:
    """Of a video that may be a photo's clip, with what was found out: so that it is found out once."""
    return f"{name}:{status.st_size}:{status.st_mtime_ns}.{'clip' if is_clip else 'own'}"


def names_in(stamps: str) -> list[str]:
    """The names of what is to be read in what `FileEntry.sidecars` holds: stamps, with a slash between them."""
    every = [stamp.rsplit(":", 2) for stamp in stamps.split("/") if stamp]
    return [name for name, _, time in every if not time.endswith((".clip", ".own"))]


def joined(stamps: Iterable[str]) -> str:
    """What `FileEntry.sidecars` holds."""
    return "/".join(stamps)
