"""The contract of a filter key: how the value of a filter reaches it, and what it says of a document."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from mmsearch.core.errors import UsageError
from mmsearch.filters.tree import Where


class BadValueError(UsageError):
    """What is wrong with a value, and at which of its characters; the reader of the query adds the place."""

    def __init__(self, problem: str, offset: int = 0) -> None:
        self.offset = offset
        super().__init__(problem)


@dataclass(frozen=True)
class Value:
    """The value of a filter: its characters, whether a backslash made each ordinary, where each stands."""

    characters: tuple[tuple[str, bool, int], ...]

    @property
    def text(self) -> str:
        """The value without quotes and escapes."""
        return "".join(character for character, _, _ in self.characters)

    @property
    def pattern(self) -> str:
        """The value as a path pattern, where a backslash remains before what it made ordinary; one that stands for
        itself divides names, as on Windows.
        """
        return "".join(
            "/"
            if character == "\\" and not is_ordinary
            else "\\" + character
            if is_ordinary and character in "\\*?"
            else character
            for character, is_ordinary, _ in self.characters
        )

    def position(self, offset: int, otherwise: int) -> int:
        """Where in the query the value's character at ``offset`` stands; past its end, its last one."""
        if not self.characters:
            return otherwise
        return self.characters[min(offset, len(self.characters) - 1)][2]


class Held(Protocol):
    """What a store says of what it holds, for sentences about it."""

    def count(self, where: Where | None = None) -> int:
        """How many documents satisfy it."""

    def values(self, field: str, limit: int) -> Sequence[tuple[str, int]]:
        """The values of a field, most frequent first, and how many documents have each."""

    def span(self, field: str) -> tuple[Any, Any] | None:
        """The least and the greatest value of a field; ``None`` where no document has any."""


class FilterKey(ABC):
    """One key of the query language. ``meaning`` and ``example`` are help text."""

    meaning: ClassVar[str]
    example: ClassVar[str]

    @staticmethod
    @abstractmethod
    def where(value: Value) -> Where:
        """What a value, which is not blank, says of a document.

        Raises:
            BadValueError: it cannot be read; any other `UsageError` is put at its first character.
        """

    @staticmethod
    def choices() -> tuple[str, ...]:
        """The values, if they are few."""
        return ()

    @classmethod
    def understood(cls, name: str, value: Value) -> str | None:
        """One sentence without its end on what a value was taken for, where that is not plain from it. ``name``: what
        the key was written as.
        """
        return None

    @classmethod
    def unmet(cls, name: str, value: Value, held: Held) -> str:
        """One sentence without its end for a value that nothing in ``held`` meets: what there is instead, if that is
        short. ``name``: what the key was written as.
        """
        return f"no file meets {name}:{value.text}"
