"""Patterns of paths."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from mmsearch.core.errors import UsageError

LONGEST = 4096
"""Characters of a pattern: no path is longer."""


def path_regex(names: list[str], *, below: bool = False) -> str:
    """A regular expression for the whole of a path, from patterns of its names; ``**`` is any folders. With ``below``,
    more names may follow.

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
    return regex.removesuffix("/") + ("(?:/(?s:.*))?" if below else "")


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


def names_of(pattern: str) -> list[str]:
    """The patterns of the names of a path.

    Raises:
        UsageError: there is none, or nothing in them.
    """
    if len(pattern) > LONGEST:
        raise UsageError(f"the path pattern has {len(pattern):,} characters; expected at most {LONGEST:,}")
    names = [name for name in pattern.split("/") if name]
    if not "".join(character for character, _ in pattern_characters(pattern)).strip():
        raise UsageError("the path pattern is empty")
    if not names:
        raise UsageError(f'the path pattern "{pattern}" names nothing; write for instance holiday/**')
    return names


def rests_inside(
    names: Sequence[str], folder: Sequence[str], *, ignore_case: bool, below: bool
) -> Iterator[tuple[str, ...]]:
    """What is left of the patterns of a path for paths inside of a folder, given as its names from the top; nothing is
    left, ``()``, where everything in it matches.
    """
    last = len(names)

    def with_none(places: Iterable[int]) -> set[int]:
        """``**`` may be no folder at all, but at the end."""
        found = set(places)
        for place in sorted(found):
            while place < last - 1 and names[place] == "**":
                place += 1
                found.add(place)
        return found

    places = with_none([0])
    for name in folder:
        further = set()
        for place in places:
            if place == last:
                further.add(last)
            elif names[place] == "**":
                further.add(place)
            elif matches_path(path_regex([names[place]]), int(ignore_case), name):
                further.add(place + 1)
        places = with_none(further) if below else with_none(place for place in further if place < last)
    for place in sorted(places):
        yield tuple(names[place:])


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


def fixed_beginning(names: Sequence[str]) -> str:
    """What every matching path begins with, case distinguished, as far as it is surely spelt so in a catalogue.

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
    """Does the whole path match a ``path_regex``? ``None`` for ``None``."""
    if path is None:
        return None
    return _compiled(regex, ignore_case).fullmatch(unicodedata.normalize("NFC", path)) is not None
