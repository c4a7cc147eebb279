"""Statements on the text that was read in pictures and video frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmsearch.store.local.catalogue.catalogue import Catalogue
from mmsearch.store.local.catalogue.matching import match_part
from mmsearch.store.local.catalogue.space_tables import marks


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
            sql.execute("INSERT INTO picture_words (rowid, text) VALUES (?, mmsearch_tokens(?))", [segment_id, text])
            sql.execute(
                "INSERT INTO picture_letters (rowid, letters) VALUES (?, mmsearch_letters(?))", [segment_id, text]
            )


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
    """Documents and rows of vectors of the segments in which a text was read or said, at most ``limit`` and one more.

    ``words`` is an FTS5 query on words; ``letters`` (see `letters_of`) may stand in the middle of a line.
    """
    rows = catalogue.sql.execute(
        """SELECT d.id, v.row FROM (
               SELECT rowid AS id FROM picture_words WHERE picture_words MATCH :words
               UNION SELECT rowid FROM picture_letters WHERE :letters IS NOT NULL AND picture_letters MATCH :letters
               UNION SELECT w.rowid FROM segment_words w JOIN spoken p ON p.segment_id = w.rowid
                     WHERE segment_words MATCH :words
           ) found JOIN segments s ON s.id = found.id JOIN documents d ON d.content_id = s.content_id
           JOIN vectors v ON v.segment_id = s.id AND v.space_id = :space LIMIT :limit""",
        {
            "words": words,
            "letters": None if letters is None else match_part(letters),
            "space": space_id,
            "limit": limit + 1,
        },
    )
    return [(document, row) for document, row in rows]


def texts_of_rows(catalogue: Catalogue, space_id: int, rows: Sequence[int]) -> dict[int, str]:
    """The lines that were read in the segments of some vectors, by row; those without any are left out."""
    texts = catalogue.sql.execute(
        f"""SELECT v.row, t.text FROM vectors v JOIN segment_readings t ON t.segment_id = v.segment_id
            WHERE v.space_id = ? AND v.row IN ({marks(rows)})""",
        [space_id, *(int(row) for row in rows)],
    )
    return dict(texts.fetchall())
