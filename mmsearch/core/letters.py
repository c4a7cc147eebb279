"""Words as the full text knows them: one way to write each of them, and where one ends.

Accents, case, full-width and other compatibility forms do not count (``Straße`` is ``strasse``, whichever way a file
system spells it). Scripts that are written without spaces between words, and Korean, whose particles hang on words,
give one token a character: a word is then found inside of any run of them, as characters in a row.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

LONG_WORD = 5
"""Letters: so long a word is hardly ever a part of another one by chance."""
_SPACELESS = (
    "\u0e00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u1b00-\u1b7f\u2e80-\u2fdf"
    "\u3005-\u3007\u3040-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\ua4cf\ua980-\ua9ff\uaa60-\uaadf\uac00-\ud7ff"
    "\uf900-\ufaff\U0001aff0-\U0001b16f\U00020000-\U0003ffff"
)
"""Thai, Lao, Tibetan, Burmese, Hangul, Khmer, Tai scripts, Balinese, Han, kana, Bopomofo, Yi, Javanese."""
_ACCENTS = re.compile(
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc]"
)
"""Of Latin, Greek and Cyrillic letters, and the points of Hebrew and Arabic, which are written or not. What changes the
sound elsewhere (the voicing of kana, vowels of Thai) stays."""
_ALSO_WRITTEN = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th"}
)
"""Letters with an accent that Unicode does not take off."""
_ASCII_RUN = re.compile("[a-z0-9]+")
_RUN = re.compile(f"[{_SPACELESS}]+|[^ {_SPACELESS}]+")
# A number stands alone even where letters touch it: IMG2043 is IMG_2043. Short ones are parts of names (mp4, x1).
_ASCII_TOKEN = re.compile("(?:[a-z]+|[0-9]{1,2}(?![0-9]))+|[0-9]{3,}")
_TOKEN = re.compile(f"[{_SPACELESS}]|(?:[^ 0-9{_SPACELESS}]+|[0-9]{{1,2}}(?![0-9]))+|[0-9]{{3,}}")
_OF_SPACELESS = re.compile(f"[{_SPACELESS}]")


class _Shapes(dict[int, str]):
    """What becomes of a character: itself, or a space where it is no part of a word."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        shape = char if char.isalnum() or unicodedata.category(char)[0] == "M" else " "
        if char.isdecimal():
            shape = str(unicodedata.decimal(char))
        self[code] = shape
        return shape


_SHAPES = _Shapes()


def _plain(text: str) -> str:
    """In lower case, without accents, with a space for whatever is no letter, digit or mark of a script."""
    decomposed = _ACCENTS.sub("", unicodedata.normalize("NFKD", text))
    return unicodedata.normalize("NFKC", decomposed.casefold()).translate(_ALSO_WRITTEN).translate(_SHAPES)


def words_of(text: str) -> list[str]:
    """Runs of letters and digits, plain; one ends where a script without spaces begins or ends."""
    return _ASCII_RUN.findall(text.lower()) if text.isascii() else _RUN.findall(_plain(text))


def tokens_of(text: str) -> list[str]:
    """What the full text holds of a text: words, numbers of three digits and more, and the single characters of scripts
    without spaces. A text has a word or a phrase where its tokens stand in a row.
    """
    return _ASCII_TOKEN.findall(text.lower()) if text.isascii() else _TOKEN.findall(_plain(text))


def is_spaceless(word: str) -> bool:
    """Whether a word is of a script that has no spaces between words."""
    return _OF_SPACELESS.search(word) is not None


def has_tokens(tokens: list[str], wanted: list[str]) -> bool:
    """Whether some tokens stand in a row among others; none do nowhere."""
    count = len(wanted)
    return count > 0 and any(tokens[at : at + count] == wanted for at, token in enumerate(tokens) if token == wanted[0])


def part_of_name(phrase: str) -> str | None:
    """What to look for inside of the words of a file's name and folders, where its tokens stand between single spaces:
    a word of `LONG_WORD` letters, or what has a digit and three characters; ``None`` for all else.
    """
    tokens = tokens_of(phrase)
    part = " ".join(tokens)
    if len(part) < 3 or is_spaceless(part):
        return None
    return part if has_digit(part) or (len(tokens) == 1 and len(part) >= LONG_WORD) else None


def has_digit(text: str) -> bool:
    """Whether a text is likely a number or a name with one, of which people know a part."""
    return any(char.isdigit() for char in text)


def letters_of(text: str) -> str:
    """Plain letters and digits alone: what is left of a line however it was spaced."""
    return "".join(tokens_of(text))


def sought_letters(phrase: str) -> str | None:
    """What to look for inside of lines that were read in pictures, or ``None`` where only whole words count.

    Readers lose spaces (``GREENWICHST``), so phrases, numbers, codes and longer words are looked for inside of lines.
    A short word is not: ``art`` would be found on every ``START``. FTS5's trigrams find nothing shorter than three
    characters.
    """
    letters = letters_of(phrase)
    tells = has_digit(letters) or len(letters) >= LONG_WORD or len(phrase.split()) > 1
    return letters if len(letters) >= 3 and tells else None


def lines_with(text: str, words: Iterable[str]) -> list[str]:
    """The lines of a text that have one of the words, whole or (see `sought_letters`) as a part."""
    wanted = [(tokens_of(word), sought_letters(word)) for word in words]
    found = []
    for line in text.splitlines():
        own = tokens_of(line)
        letters = "".join(own)
        if any(has_tokens(own, word) or (part is not None and part in letters) for word, part in wanted):
            found.append(line)
    return found
