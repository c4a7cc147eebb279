"""Which names a walk passes over: patterns of the run, and of every ``.mmsearchignore``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.core.errors import UsageError
from mmsearch.sources.base import WalkRules

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILE = ".mmsearchignore"
_NO_PATTERN = (ValueError, re.error)
"""What pathspec raises for a line that is no pattern."""


class Ignore:
    """The ignore patterns in force in one folder: those of the run and of every ``.mmsearchignore`` above."""

    def __init__(self, rules: WalkRules, root: Path, below: str) -> None:
        self._specs: tuple[tuple[int, GitIgnoreSpec], ...] = ()
        if rules.exclude:
            self._specs = ((0, _excluding(rules.exclude)),)
        parts = Path(below).parts if below else ()
        for depth in range(len(parts)):  # files in the folders above the start hold for it too
            above = "/".join(parts[:depth])
            self._specs = self.with_file_in(str(root / above), above)._specs

    def with_file_in(self, directory: str, relative: str) -> Ignore:
        """Those in force in ``directory``, ``relative`` to the root: with its own ignore file, if it has one."""
        try:
            lines = (Path(directory) / IGNORE_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return self
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


def _spec(lines: Sequence[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec  # `--help` reads the rules of a walk, and has no use for it

    return GitIgnoreSpec.from_lines(lines)


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
