"""Words inside of lines that were read in pictures, where spaces get lost."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

LONG_WORD = 5
"""Letters: so long a word is hardly ever a part of another one by chance."""


def letters_of(text: str) -> str:
    """Letters and digits alone, in lower case and without accents: what is left of a line however it was spaced."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(char for char in plain if char.isalnum())


def sought_letters(phrase: str) -> str | None:
    """What to look for inside of lines for a phrase, or ``None`` where only whole words count.

    Readers lose spaces (``GREENWICHST``), so phrases, numbers, codes, scripts without spaces and longer words are
    looked for inside of lines. A short word is not: ``art`` would be found on every ``START``. FTS5's trigrams find
    nothing shorter than three characters.
    """
    letters = letters_of(phrase)
    tells = any(char.isdigit() or ord(char) >= 0x2E80 for char in letters) or len(letters) >= LONG_WORD
    return letters if len(letters) >= 3 and (tells or len(phrase.split()) > 1) else None


def lines_with(text: str, words: Iterable[str]) -> list[str]:
    """The lines of a text that have one of the words, whole or (see `sought_letters`) as a part."""
    wanted = [(letters_of(word), sought_letters(word)) for word in words]
    found = []
    for line in text.splitlines():
        plain, own = letters_of(line), {letters_of(word) for word in line.split()}
        if any(word in own or (part is not None and part in plain) for word, part in wanted):
            found.append(line)
    return found
