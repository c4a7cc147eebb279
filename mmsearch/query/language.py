"""The query language: one line of text to what it asks for. The same in command line, API and server.

    mountain lake -people type:image after:2021 before:2023-06 path:holiday/* near:46.5,7.9,20km
    camera:"X100" size:>2mp "exact words"

Words are separated by white space; what they mean:

- ``word``: what to look for. ``"two words"``: these words, exactly. ``-word``, ``-"two words"``: without it.
- ``key:value``: a filter; what its value means stands with each key, in `mmsearch.filters.keys`. ``-key:value``: its
  complement. Several filters must all hold. A value may hold quoted parts: ``path:"my photos"/*``. Keys, types and
  units are read in any case.
- A backslash before ``" \\ : - * ? ,`` or white space makes that character ordinary: ``\\-5``, ``foo\\:bar``,
  ``path:\\*.jpg``. Before any other character it stands for itself. It also works inside quotes.
- A ``-`` is an exclusion only at the start of a word and before a letter, a digit, a quote, a backslash or a
  character beyond ASCII; so ``black-and-white``, ``a - b``, ``--`` and ``->`` are words. A quote opens a
  phrase only at the start of a word: ``12" vinyl`` has none.
- ``letters:something`` with unknown letters is an error, since it is most likely a mistyped filter. It is a
  word, though, if there are fewer than two letters, anything but ASCII letters, nothing after the colon, or
  another ``:`` or a ``/`` right after it: ``12:30``, ``:-)``, ``C:\\x``, ``note:``, ``http://x.org``,
  ``std::map``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from mmsearch.core.errors import UsageError
from mmsearch.filters import KEYS, BadValueError, Held, Not, Value, Where

MOST_PARTS = 5_000
"""Filters, exact phrases and exclusions of one query."""
_SPECIAL = frozenset('"\\:-*?,')
_KEY = re.compile(r"([A-Za-z]{2,}):(?=[^\s:/])")
_OWN_KEY = re.compile(rf"({'|'.join(KEYS.own)}):", re.IGNORECASE | re.ASCII)
_CURLY = re.compile('(?<![^\\s:-])(?:\u201c(?=[^\u201c-\u201f]+\u201d)|\u201e)([^"\\\\\u201c-\u201f]+)[\u201c\u201d]')
"""Quotes around something, at the beginning of a word or value, as phones write them where somebody types ``"``."""


class QueryError(UsageError):
    """A query that cannot be read. ``position`` is the character at fault, from 0, inside ``query``.

    The message says what is wrong and shows the query with a caret under that character.
    """

    def __init__(self, problem: str, query: str, position: int) -> None:
        self.problem = problem
        self.query = query
        self.position = max(0, min(position, len(query) - 1))
        super().__init__(f"{problem}\n{_pointed_at(query, self.position)}")


class Spelled(NamedTuple):
    """A filter as it was written; ``where``: what it says, also where it is ``negated``."""

    key: str
    value: Value
    negated: bool
    where: Where

    @property
    def understood(self) -> str | None:
        """What its value was taken for, where that is not plain from it."""
        return KEYS[self.key].understood(self.key, self.value)

    def unmet(self, held: Held) -> str:
        """What to say where nothing in ``held`` meets it."""
        if self.negated:
            return f"-{self.key}:{self.value.text} leaves out every file"
        return KEYS[self.key].unmet(self.key, self.value, held)


@dataclass(frozen=True)
class ParsedQuery:
    """What a query asks for.

    ``text``: the free words, joined by single spaces; may be empty. ``exact``: the quoted phrases, and
    ``excluded``: the words and phrases after ``-``; both with single spaces. ``filters``: in the order
    written; ``spelled``: the same, as they were written.
    """

    text: str = ""
    excluded: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    filters: tuple[Where, ...] = ()
    spelled: tuple[Spelled, ...] = field(default=(), compare=False, repr=False)


def parse_query(query: str) -> ParsedQuery:
    """Reads a query. An empty one is a query too; what is none raises ``QueryError``, and nothing else."""
    if '"' not in query:
        query = _CURLY.sub(lambda found: f'"{found[1]}"' if found[1].strip() else found[0], query)
    return _Reader(query).read()


def complete(prefix: str) -> list[str]:
    """The ways in which a query typed so far could go on, each as the whole query.

    Completes the key of a filter, and the values of keys that have a fixed set (``type:``); gives nothing
    inside quotes or where any word may stand. An empty last word offers all keys.
    """
    start = max((i + 1 for i, character in enumerate(prefix) if character.isspace()), default=0)
    done, word = prefix[:start], prefix[start:]
    try:
        parse_query(done)
    except QueryError:
        return []
    if word.startswith("-"):
        done, word = done + "-", word[1:]
    name, colon, value = word.partition(":")
    if not colon:
        return [f"{done}{key}:" for key in KEYS if key.startswith(word.lower())]
    try:
        key = KEYS.find(name.lower())
    except UsageError:  # an installed package brings it, and it cannot be loaded
        return []
    *given, last = value.split(",")
    rest = [c for c in (key.choices() if key else ()) if c.startswith(last.lower()) and c not in given]
    return [f"{done}{name}:{','.join([*given, choice])}" for choice in rest]


class _Reader:
    """Walks over one query, from left to right."""

    def __init__(self, query: str) -> None:
        self.query = query
        self.at = 0
        self.words: list[str] = []
        self.excluded: list[str] = []
        self.exact: list[str] = []
        self.filters: list[Spelled] = []

    def read(self) -> ParsedQuery:
        for position, character in enumerate(self.query):
            if "\ud800" <= character <= "\udfff":
                raise QueryError("this character is not valid Unicode", self.query, position)
        while self._skip_space():
            start = self.at
            self._token()
            if len(self.filters) + len(self.exact) + len(self.excluded) > MOST_PARTS:
                raise QueryError(f"more than {MOST_PARTS:,} filters, phrases and exclusions", self.query, start)
        text = " ".join(" ".join(self.words).split())
        filters = tuple(one.where for one in self.filters)
        return ParsedQuery(text, tuple(self.excluded), tuple(self.exact), filters, tuple(self.filters))

    def _skip_space(self) -> bool:
        while self.at < len(self.query) and self.query[self.at].isspace():
            self.at += 1
        return self.at < len(self.query)

    def _token(self) -> None:
        negated = self.query[self.at] == "-" and _can_be_excluded(self.query[self.at + 1 : self.at + 2])
        if negated:
            self.at += 1
        if self.query[self.at] == '"':
            (self.excluded if negated else self.exact).append(self._phrase())
        elif key := _OWN_KEY.match(self.query, self.at) or _KEY.match(self.query, self.at):
            self._filter(key, negated)
        else:
            start = self.at
            word = "".join(character for character, _, _ in self._characters())
            if not negated:
                self.words.append(word)
            elif word.strip():
                self.excluded.append(" ".join(word.split()))
            else:
                raise QueryError("nothing to exclude follows the -", self.query, start - 1)

    def _phrase(self) -> str:
        start = self.at
        self.at += 1
        phrase = " ".join("".join(c for c, _, _ in self._characters(quoted_from=start)).split())
        if not phrase:
            raise QueryError("there is nothing between these quotes", self.query, start)
        return phrase

    def _filter(self, found: re.Match[str], negated: bool) -> None:
        name = found[1].lower()
        try:
            key = KEYS.find(name)
        except UsageError as error:
            raise QueryError(str(error), self.query, self.at) from error
        if key is None:
            raise QueryError(_unknown_key(found[1]), self.query, self.at)
        self.at = found.end()
        value = Value(tuple(self._value_characters()))
        try:
            if not value.text.strip():
                raise BadValueError(f"{name}: needs a value, as in {key.example}; for the word itself write {name}\\:")
            where = key.where(value)
        except BadValueError as problem:
            position = value.position(problem.offset, found.end() - 1)
            raise QueryError(str(problem), self.query, position) from problem
        except UsageError as error:
            raise QueryError(f"{name}: {error}", self.query, value.position(0, found.end() - 1)) from error
        self.filters.append(Spelled(name, value, negated, Not(where) if negated else where))

    def _value_characters(self) -> Iterator[tuple[str, bool, int]]:
        """Up to white space outside quotes; quoted parts lose their quotes."""
        while self.at < len(self.query) and not self.query[self.at].isspace():
            if self.query[self.at] == '"':
                start = self.at
                self.at += 1
                yield from self._characters(quoted_from=start)
            else:
                yield self._character()

    def _characters(self, quoted_from: int | None = None) -> Iterator[tuple[str, bool, int]]:
        """Up to white space, or past the closing quote of the quote at ``quoted_from``."""
        while self.at < len(self.query):
            character = self.query[self.at]
            if quoted_from is None and character.isspace():
                return
            if quoted_from is not None and character == '"':
                self.at += 1
                return
            yield self._character()
        if quoted_from is not None:
            raise QueryError(
                'this quote is never closed; add a " or write \\" for the character', self.query, quoted_from
            )

    def _character(self) -> tuple[str, bool, int]:
        """The next character, whether a backslash made it ordinary, and where it stands."""
        at = self.at
        following = self.query[at + 1 : at + 2]
        if self.query[at] == "\\" and following and (following in _SPECIAL or following.isspace()):
            self.at += 2
            return following, True, at
        self.at += 1
        return self.query[at], False, at


def _can_be_excluded(following: str) -> bool:
    if not following or following.isspace():
        return False
    return following in '"\\' or following.isalnum() or not following.isascii()


def _unknown_key(key: str) -> str:
    from difflib import get_close_matches  # only where an error is being written anyway

    near = get_close_matches(key.lower(), list(KEYS), n=2, cutoff=0.5)
    names = " or ".join(f"{name}:" for name in near)
    meant = f"did you mean {names}?" if near else f"the filters are {', '.join(KEYS)}."
    return f'unknown filter "{key}:"; {meant} To search for the word itself write {key}\\: or put it in quotes'


def _pointed_at(query: str, position: int) -> str:
    """The query on one line, cut around the position if long, and a caret under the character."""
    if not query:
        return "^"
    start, end = max(0, position - 60), min(len(query), position + 40)
    before = ("…" if start else "") + _on_one_line(query[start:position])
    after = _on_one_line(query[position:end]) + ("…" if end < len(query) else "")
    return f"  {before}{after}\n  {' ' * _columns(before)}^"


def _on_one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def _columns(text: str) -> int:
    """Terminal columns: East Asian wide characters take two, combining marks none."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)
