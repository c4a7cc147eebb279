"""By where the file is: patterns of paths."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from mmsearch.core.errors import UsageError
from mmsearch.filters.base import Filter, Parameters, check_text


@dataclass(frozen=True)
class PathFilter(Filter):
    """Documents whose path below the root matches a pattern, upper and lower case distinguished.

    ``*`` is any run of characters within a name, ``?`` one character of a name, ``**`` as a whole name any
    number of folders, also none (at the end: everything below). A backslash makes the next character stand
    for itself (but ``/`` always divides); nothing else is special, brackets neither. The whole path must
    match, except that a pattern without ``/`` is matched against the file's name, in whatever folder. ``/x``
    is ``x`` in the root itself, ``x/`` is ``x/**``.
    """

    pattern: str

    def __post_init__(self) -> None:
        _names_of(self.pattern)

    def condition(self, parameters: Parameters) -> str:
        """``d.path`` matches; a range over its fixed beginning lets an index on paths help."""
        names = _names_of(self.pattern)
        if "/" not in self.pattern:
            names = ["**", *names]
        elif self.pattern.endswith("/"):
            names = [*names, "**"]
        beginning = _fixed_beginning(names)
        if not beginning:
            return _matches(names, parameters)
        end = beginning[:-1] + chr(ord(beginning[-1]) + 1)
        inside = f"d.path >= {parameters.add(beginning)} AND d.path < {parameters.add(end)}"
        if names[-1] == "**" and beginning.count("/") == len(names) - 1:  # all below a folder: nothing more to ask
            return inside
        return f"{inside} AND {_matches(names, parameters)}"


def _matches(names: list[str], parameters: Parameters) -> str:
    return f"mmsearch_glob({parameters.add(path_regex(names))}, 0, d.path)"


@dataclass(frozen=True)
class FolderFilter(Filter):
    """Documents anywhere below a folder of this name, upper and lower case not distinguished.

    Several names (``2021/holiday``) must follow each other; a leading ``/`` ties the first to the root.
    Wildcards are those of ``PathFilter``.
    """

    folder: str

    def __post_init__(self) -> None:
        _names_of(self.folder)

    def condition(self, parameters: Parameters) -> str:
        """Some run of folders in ``d.path`` matches."""
        start = [] if self.folder.startswith("/") else ["**"]
        regex = path_regex([*start, *_names_of(self.folder), "**"])
        return f"mmsearch_glob({parameters.add(regex)}, 1, d.path)"


def path_regex(names: list[str]) -> str:
    """A regular expression for the whole of a path, from patterns of its names; ``**`` is any folders.

    What lies between two wildcards is looked for once, leftmost, and never given up again (a group inside a
    lookahead, then a reference to it), so no pattern takes more than about length × pattern steps. Leftmost
    is enough: what follows is a wildcard, which can skip whatever a later place would have skipped.
    """
    if names[-1] == "**":
        names = [*names, "*"]
    runs: list[list[str]] = [[]]
    for name in names:
        if name == "**":
            runs.append([])
        else:
            runs[-1].append(name)
    groups = _Groups()
    first, *others = runs
    regex = "".join(_name_regex(name, groups) + "/" for name in first)
    for middle in others[:-1]:
        if middle:
            regex += groups.once("(?:[^/]*/)*?" + "".join(_name_regex(n, groups) + "/" for n in middle))
    if others:
        regex += "(?:[^/]*/)*" + "".join(_name_regex(name, groups) + "/" for name in others[-1])
    return regex.removesuffix("/")


class _Groups:
    """Numbers the groups of one regular expression."""

    def __init__(self) -> None:
        self.count = 0

    def once(self, regex: str) -> str:
        """The first match of ``regex`` from here on, for good."""
        self.count += 1
        return f"(?=(?P<g{self.count}>{regex}))(?P=g{self.count})"


def _name_regex(pattern: str, groups: _Groups) -> str:
    pieces = [""]
    for character, is_literal in pattern_characters(unicodedata.normalize("NFC", pattern)):
        if is_literal or character not in "*?":
            pieces[-1] += re.escape(character)
        elif character == "?":
            pieces[-1] += "[^/]"
        else:
            pieces.append("")
    first, *others = pieces
    middle = "".join(groups.once("[^/]*?" + piece) for piece in others[:-1] if piece)
    return first + middle + ("[^/]*" + others[-1] if others else "")


def _names_of(pattern: str) -> list[str]:
    check_text("".join(character for character, _ in pattern_characters(pattern)), "path pattern")
    names = [name for name in pattern.split("/") if name]
    if not names:
        raise UsageError(f'the path pattern "{pattern}" names nothing; write for instance holiday/**')
    return names


def pattern_characters(pattern: str) -> Iterator[tuple[str, bool]]:
    """The characters of a pattern, and whether a backslash (left out) takes their meaning away."""
    escaped = False
    for character in pattern:
        if character == "\\" and not escaped:
            escaped = True
            continue
        yield character, escaped
        escaped = False
    if escaped:
        yield "\\", True


def _fixed_beginning(names: list[str]) -> str:
    """What every matching path begins with, as far as it is surely spelt so in the catalogue.

    Outside ASCII, and for the three ASCII characters that others turn into under NFC, it may not be.
    """
    fixed = ""
    for name in names:
        for character, is_literal in pattern_characters(unicodedata.normalize("NFC", name)):
            is_wildcard = character in "*?" and not is_literal
            if is_wildcard or not character.isascii() or character in "K;`\0":
                return fixed
            fixed += character
        fixed += "/"
    return fixed.removesuffix("/")


@lru_cache(maxsize=256)
def _compiled(regex: str, ignore_case: int) -> re.Pattern[str]:
    return re.compile(regex, re.IGNORECASE if ignore_case else 0)


def matches_path(regex: str, ignore_case: int, path: str | None) -> bool | None:
    """Does the whole path match a ``path_regex``? SQL's ``mmsearch_glob``; NULL for NULL."""
    if path is None:
        return None
    return _compiled(regex, ignore_case).fullmatch(unicodedata.normalize("NFC", path)) is not None
