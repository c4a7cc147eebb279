"""Which names a walk passes over: patterns of the run, and of every ``.mmsearchignore``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.core.errors import UsageError
from mmsearch.core.regular import read_regular
from mmsearch.sources.base import WalkRules
from mmsearch.sources.remote import is_remote

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILE = ".mmsearchignore"
MAX_BYTES = 1_000_000
"""Of an ignore file: people write some hundred bytes."""
_NO_PATTERN = (ValueError, re.error)
"""What pathspec raises for a line that is no pattern."""


class Ignore:
    """The ignore patterns in force in one folder: those of the run and of every ``.mmsearchignore`` above.

    An ignore file that is there and cannot be read is an `OSError`: what it would leave out is not to be indexed.
    """

    def __init__(self, rules: WalkRules, root: Path, below: str) -> None:
        self._specs: tuple[tuple[int, GitIgnoreSpec], ...] = ()
        if rules.exclude:
            self._specs = ((0, _excluding(rules.exclude)),)
        parts = Path(below).parts if below else ()
        for depth in range(len(parts)):  # files in the folders above the start hold for it too
            above = "/".join(parts[:depth])
            self._specs = self.with_file_in(root / above, above)._specs

    def with_file_in(self, directory: Path, relative: str) -> Ignore:
        """Those in force in ``directory``, ``relative`` to the root: with its own ignore file, if it has one."""
        try:
            data = _read(directory / IGNORE_FILE)
        except (FileNotFoundError, NotADirectoryError):
            return self
        if data is None:
            raise OSError(None, f"it is larger than {MAX_BYTES // 10**6} MB")
        lines = data.decode("utf-8", "replace").splitlines()
        deeper = object.__new__(Ignore)
        start = len(relative) + 1 if relative else 0
        deeper._specs = (*self._specs, (start, _lenient(lines)))
        return deeper

    @property
    def matches_anything(self) -> bool:
        """Whether there is any pattern."""
        return bool(self._specs)

    def matches(self, path: str, is_directory: bool) -> bool:
        """Whether some pattern excludes a path, relative to the root."""
        name = path + "/" if is_directory else path
        return any(spec.match_file(name[start:]) for start, spec in self._specs)


def _read(path: Path) -> bytes | None:
    """As `read_regular`, also of an object in a store."""
    if not is_remote(path):
        return read_regular(path, MAX_BYTES)
    if not path.is_file():
        raise FileNotFoundError(str(path))
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    return data if len(data) <= MAX_BYTES else None


def _spec(lines: Sequence[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec  # `--help` reads the rules of a walk, and has no use for it

    spec = GitIgnoreSpec.from_lines(lines)
    for pattern in spec.patterns:
        compiled = getattr(pattern, "regex", None)
        if compiled is not None and (quick := without_going_back(compiled.pattern)) != compiled.pattern:
            pattern.regex = re.compile(quick)
    return spec


_RUN, _FOLDERS = "[^/]*", "(?:/.+)?/"
"""What pathspec makes of ``*`` and of ``/**/``."""


def without_going_back(regex: str) -> str:
    """The same pattern, in time that grows with the product of its length and the path's, not with a power of it.

    What stands between two wildcards is looked for once, leftmost, and for good (a group inside a lookahead, then a
    reference to it): a later place would only leave less for the wildcard that follows. Same as in
    `mmsearch.filters.paths.path_regex`.
    """
    runs = [_names(part) for part in regex.split(_FOLDERS)]
    groups = iter(range(10**6))
    first, *others = [part(groups) for part in runs]
    if not others:
        return first
    middle = "".join(_once(f"(?:/.+?)??/{part}(?=/)", groups) for part in others[:-1])
    return first + middle + _FOLDERS + others[-1]


def _names(regex: str) -> Callable[[Iterator[int]], str]:
    first, *others = regex.split(_RUN)
    if not others:
        return lambda _: first
    return lambda groups: (
        first + "".join(_once(f"[^/]*?{part}", groups) for part in others[:-1] if part) + _RUN + others[-1]
    )


def _once(regex: str, groups: Iterator[int]) -> str:
    """The first match of ``regex`` from here on, for good."""
    name = f"once{next(groups)}"
    return f"(?=(?P<{name}>{regex}))(?P={name})"


def _excluding(patterns: Sequence[str]) -> GitIgnoreSpec:
    try:
        return _spec(patterns)
    except _NO_PATTERN as error:
        raise UsageError(f"a pattern to exclude makes no sense: {error}; write it as in a .gitignore file") from error


def _lenient(lines: Sequence[str]) -> GitIgnoreSpec:
    """As git does: a line that is no pattern excludes nothing, the others hold."""
    try:
        return _spec(lines)
    except _NO_PATTERN:
        return _spec([line for line in lines if _is_pattern(line)])


def _is_pattern(line: str) -> bool:
    try:
        _spec([line])
    except _NO_PATTERN:
        return False
    return True
