"""Statements on the text that was read in pictures and video frames."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from mmsearch.store.local.catalogue.catalogue import Catalogue

LONG_WORD = 5
"""Letters: so long a word is hardly ever a part of another one by chance."""


def put_reading(
    catalogue: Catalogue, content_id: int, reader: str, lines: Mapping[int, Sequence[str]], problem: str | None = None
) -> None:
    """What ``reader`` found in a content, as lines by segment, in place of what was read before."""
    sql = catalogue.sql
    # One by one: a replaced row fires no delete trigger.
    sql.execute(
        "DELETE FROM segment_readings WHERE segment_id IN (SELECT id FROM segments WHERE content_id = ?)", [content_id]
    )
    sql.execute("INSERT OR REPLACE INTO readings VALUES (?, ?, ?)", [content_id, reader, problem])
    for segment_id, found in lines.items():
        text = "\n".join(found)
        if text:
            sql.execute("INSERT INTO segment_readings VALUES (?, ?)", [segment_id, text])
            sql.execute("INSERT INTO picture_words (rowid, text) VALUES (?, ?)", [segment_id, text])
            letters = "\n".join(map(letters_of, found))
            sql.execute("INSERT INTO picture_letters (rowid, letters) VALUES (?, ?)", [segment_id, letters])


def reading_counts(catalogue: Catalogue) -> dict[str, int]:
    """Documents whose pictures were looked at for text (``read``), those that have some, and those that failed."""
    row = catalogue.sql.execute(
        """SELECT count(*), coalesce(sum(EXISTS (
               SELECT 1 FROM segments s JOIN segment_readings t ON t.segment_id = s.id WHERE s.content_id = d.content_id
           )), 0), count(g.problem) FROM documents d JOIN readings g ON g.content_id = d.content_id"""
    ).fetchone()
    return {"read": row[0], "with_text": row[1], "failed": row[2]}


def has_readings(catalogue: Catalogue) -> bool:
    """Whether text was found in any picture at all."""
    return catalogue.sql.execute("SELECT 1 FROM segment_readings LIMIT 1").fetchone() is not None


def pictures_with(
    catalogue: Catalogue, space_id: int, words: str, letters: str | None, limit: int
) -> list[tuple[int, int]]:
    """Documents and rows of vectors of the segments in which a text was read, at most ``limit`` and one more.

    ``words`` is an FTS5 query on words; ``letters`` (see `letters_of`) may stand in the middle of a line.
    """
    rows = catalogue.sql.execute(
        """SELECT d.id, v.row FROM (
               SELECT rowid AS id FROM picture_words WHERE picture_words MATCH :words
               UNION SELECT rowid FROM picture_letters WHERE :letters IS NOT NULL AND picture_letters MATCH :letters
           ) found JOIN segments s ON s.id = found.id JOIN documents d ON d.content_id = s.content_id
           JOIN vectors v ON v.segment_id = s.id AND v.space_id = :space LIMIT :limit""",
        {"words": words, "letters": None if letters is None else f'"{letters}"', "space": space_id, "limit": limit + 1},
    )
    return [(document, row) for document, row in rows]


def text_of_row(catalogue: Catalogue, space_id: int, row: int) -> str | None:
    """The lines that were read in the segment of a vector."""
    found = catalogue.sql.execute(
        """SELECT t.text FROM vectors v JOIN segment_readings t ON t.segment_id = v.segment_id
           WHERE v.space_id = ? AND v.row = ?""",
        [space_id, row],
    ).fetchone()
    return None if found is None else str(found[0])


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
