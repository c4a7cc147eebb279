"""Statements that find documents by a condition, by their words, or by their date: what a search asks too."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from mmsearch.core.letters import tokens_of
from mmsearch.core.types import MediaInfo
from mmsearch.store.base import Look, NewSegment
from mmsearch.store.local.catalogue.bulk import INFO_COLUMNS
from mmsearch.store.local.catalogue.catalogue import BESIDE_COLUMNS, Catalogue
from mmsearch.store.local.catalogue.row_owners import RowArray
from mmsearch.store.local.catalogue.rows import FOUND, Found
from mmsearch.store.local.catalogue.space_tables import marks

_FEW, _MANY = 200, 10_000
_ASKED_AFTER, _STEPS_PER_FOUND = 200, 64
"""Steps of SQLite's machine."""
CHANGED = "d.mtime_ns / 1000000000, 'unixepoch', 'localtime'"
DATE_SQL = f"COALESCE(d.taken_at, c.taken_at, strftime('%Y-%m-%dT%H:%M:%S', {CHANGED}))"
"""The date by which documents are listed: when it was taken, else when the file was last changed; local time."""


class Condition(NamedTuple):
    """An SQL condition over ``documents AS d JOIN contents AS c``, and its named parameters.

    ``is_wide``: it is taken to hold for most documents.
    """

    sql: str
    parameters: Mapping[str, object]
    is_wide: bool = False


def documents_where(catalogue: Catalogue, condition: Condition, among: Iterable[int]) -> set[int]:
    """Which of some documents the condition holds for."""
    wanted = sorted(set(among))
    found: set[int] = set()
    for start in range(0, len(wanted), _MANY):
        numbers = ", ".join(map(str, wanted[start : start + _MANY]))  # whole numbers from the catalogue itself
        rows = catalogue.sql.execute(
            f"SELECT d.id FROM documents d JOIN contents c ON c.id = d.content_id WHERE d.id IN ({numbers}) "
            f"AND ({condition.sql})",
            dict(condition.parameters),
        )
        found.update(row[0] for row in rows)
    return found


def find_rows_where(catalogue: Catalogue, space_id: int, rows: Sequence[int], condition: Condition) -> list[Found]:
    """`Catalogue.find_rows` of those documents alone for which the condition holds."""
    found: list[Found] = []
    for start in range(0, len(rows), _MANY):
        numbers = ",".join(map(str, map(int, rows[start : start + _MANY])))
        cursor = catalogue.sql.execute(
            f"""SELECT {FOUND}
                FROM vectors v CROSS JOIN segments s ON s.id = v.segment_id
                CROSS JOIN documents d ON d.content_id = s.content_id CROSS JOIN contents c ON c.id = d.content_id
                CROSS JOIN roots r ON r.id = d.root_id
                WHERE v.space_id = :space AND v.row IN ({numbers}) AND ({condition.sql})""",
            {"space": space_id, **condition.parameters},
        )
        found.extend(map(Found.of, cursor))
    return found


def list_documents(
    catalogue: Catalogue, condition: Condition, *, most: int | None = None, patience: int | None = None
) -> tuple[RowArray, RowArray] | None:
    """The documents for which the condition holds, and their contents: two int64 (documents,), side by side.

    ``None`` where there are more than ``most``, and after ``patience`` steps (a document takes 7 to 15) with hardly any
    among the documents looked at: no index of the database leads to them then, and looking at all takes long.

    The roots let an index on (root, path) serve a path, CROSS JOIN keeps SQLite from starting elsewhere, and LEFT JOIN
    spares it the contents where the condition is not about them.
    """
    found: list[tuple[int, int]] = []
    sql, steps, is_given_up = catalogue.sql, 0, False

    def is_in_vain() -> bool:
        nonlocal steps, is_given_up
        steps += _ASKED_AFTER
        is_given_up = patience is not None and steps > patience + _STEPS_PER_FOUND * len(found)
        return is_given_up

    if patience is not None:
        sql.set_progress_handler(is_in_vain, _ASKED_AFTER)
    try:
        found.extend(
            sql.execute(
                f"""SELECT d.id, d.content_id FROM roots r CROSS JOIN documents d ON d.root_id = r.id
                    LEFT JOIN contents c ON c.id = d.content_id WHERE {condition.sql} LIMIT :at_most""",
                {"at_most": -1 if most is None else most + 1, **condition.parameters},
            )
        )
    except sqlite3.OperationalError:
        if not is_given_up:
            raise
        return None
    finally:
        if patience is not None:
            sql.set_progress_handler(None, 0)
    if most is not None and len(found) > most:
        return None
    pairs = np.fromiter(chain.from_iterable(found), dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def contents_of_documents(catalogue: Catalogue, documents: Sequence[int]) -> tuple[RowArray, RowArray]:
    """Those of some documents that are still there, and their contents: two int64 (documents,), side by side."""
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(documents), _MANY):
        numbers = ", ".join(str(int(document)) for document in documents[start : start + _MANY])
        pairs += catalogue.sql.execute(f"SELECT id, content_id FROM documents WHERE id IN ({numbers})")
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def list_by_date(catalogue: Catalogue, space_id: int, condition: Condition, limit: int, offset: int = 0) -> list[Found]:
    """The first segments of the documents for which the condition holds, newest document first, ties by id."""
    cursor = catalogue.sql.execute(
        f"""SELECT {FOUND}, {DATE_SQL}
            FROM documents d JOIN contents c ON c.id = d.content_id JOIN roots r ON r.id = d.root_id
            JOIN segments s ON s.content_id = c.id AND s.ordinal = 0
            JOIN vectors v ON v.segment_id = s.id AND v.space_id = :space
            WHERE {condition.sql} ORDER BY {DATE_SQL} DESC, d.id LIMIT :limit OFFSET :offset""",
        {"space": space_id, "limit": limit, "offset": offset, **condition.parameters},
    )
    return list(map(Found.of, cursor))


_BESIDE = {name: f"COALESCE(d.{name}, c.{name})" for name in BESIDE_COLUMNS}
INFO_SQL = ", ".join(_BESIDE.get(name, f"c.{name}") for name in INFO_COLUMNS)
"""What is said of a document's source, in it or beside it, in the order of the fields of `MediaInfo`."""
_DESCRIBED = f"d.id, r.path, r.is_relative, d.path, d.modality, d.size, d.mtime_ns, {INFO_SQL}"
_SOURCES = "documents d JOIN contents c ON c.id = d.content_id JOIN roots r ON r.id = d.root_id"
FOLDER_SQL = "rtrim(rtrim(d.path, replace(d.path, '/', '')), '/')"
"""What stands before the last slash of the path in the root."""
KNOWN_DATE_SQL = f"iif(d.taken_at IS NULL AND c.taken_at IS NULL AND d.mtime_ns = 0, NULL, {DATE_SQL})"
"""`DATE_SQL`, NULL for what was imported without a date and is no file."""


class Described(NamedTuple):
    """What lists show of a document, whose path is inside of its root."""

    id: int
    root: str
    root_is_relative: bool
    path: str
    modality: str
    size: int
    mtime_ns: int
    info: MediaInfo


def described(catalogue: Catalogue, documents: Sequence[int]) -> list[Described]:
    """Some documents, in no order."""
    found: list[Described] = []
    for start in range(0, len(documents), _MANY):
        part = [int(one) for one in documents[start : start + _MANY]]
        # As parameters: SQLite then knows the statement for so many documents, which takes as long to read as to run.
        rows = catalogue.sql.execute(f"SELECT {_DESCRIBED} FROM {_SOURCES} WHERE d.id IN ({marks(part)})", part)
        found += (Described._make((*row[:7], MediaInfo(*row[7:]))) for row in rows)
    return found


def ids_by_date(catalogue: Catalogue, condition: Condition, limit: int, offset: int) -> list[int]:
    """A part of the documents for which a condition holds, newest first, ties by id."""
    rows = catalogue.sql.execute(
        f"""SELECT d.id FROM documents d JOIN contents c ON c.id = d.content_id WHERE {condition.sql}
            ORDER BY {KNOWN_DATE_SQL} DESC, d.id LIMIT :limit OFFSET :offset""",
        {**condition.parameters, "limit": limit, "offset": offset},
    )
    return [row[0] for row in rows]


def ids_by_path(catalogue: Catalogue, condition: Condition, roots: Sequence[int]) -> list[int]:
    """The documents for which a condition holds, by path in their roots, one of ``roots`` after another."""
    found: list[int] = []
    for root in roots:
        rows = catalogue.sql.execute(
            f"""SELECT d.id FROM documents d JOIN contents c ON c.id = d.content_id
                WHERE d.root_id = :root AND ({condition.sql}) ORDER BY d.path""",
            {**condition.parameters, "root": root},
        )
        found += (row[0] for row in rows)
    return found


def months_where(catalogue: Catalogue, condition: Condition) -> list[tuple[str | None, int]]:
    """Months of the dates of the documents for which a condition holds, the latest first, and how many they are."""
    return catalogue.sql.execute(
        f"""SELECT substr({KNOWN_DATE_SQL}, 1, 7) AS month, count(*)
            FROM documents d JOIN contents c ON c.id = d.content_id WHERE {condition.sql} GROUP BY 1 ORDER BY 1 DESC""",
        dict(condition.parameters),
    ).fetchall()


def folders_where(catalogue: Catalogue, condition: Condition | None) -> Counter[tuple[int, str]]:
    """Root and folder in it of the documents for which a condition holds, and how many they are.

    Python cuts the paths: with `FOLDER_SQL` it takes three times as long.
    """
    sql, values = "SELECT root_id, path FROM documents", {}
    if condition is not None:
        sql = f"""SELECT d.root_id, d.path FROM documents d JOIN contents c ON c.id = d.content_id
                  WHERE {condition.sql}"""
        values = dict(condition.parameters)
    return Counter((root, path.rpartition("/")[0]) for root, path in catalogue.sql.execute(sql, values))


# Words


def match_phrase(words: str) -> str:
    """An FTS5 query for the tokens of these words in a row; whatever they hold, nothing in them is an operator."""
    return match_part(" ".join(tokens_of(words)))


def match_part(part: str) -> str:
    """An FTS5 query for tokens, or with trigrams for a part of them."""
    return f'"{part}"'


WORDS_SQL = """(d.id IN (SELECT rowid FROM document_words WHERE document_words MATCH {0}
                         UNION SELECT rowid FROM name_parts WHERE {2} <> '' AND name_parts MATCH {2})
    OR EXISTS (SELECT 1 FROM segments w WHERE w.content_id = c.id AND w.id IN (
               SELECT rowid FROM segment_words WHERE segment_words MATCH {0}
               UNION SELECT rowid FROM picture_words WHERE picture_words MATCH {0}
               UNION SELECT rowid FROM picture_letters WHERE {1} <> '' AND picture_letters MATCH {1})))"""
"""The condition that a document has a match in its path, folder, caption, description or text, or in what was read in
its pictures; ``{0}``: the query, ``{1}``: what else may stand inside of a line that was read, or an empty text;
``{2}``: the same of a name."""


def documents_with_words(catalogue: Catalogue, match: str, limit: int) -> list[int] | None:
    """Documents of which a text matches the FTS5 query, by id; ``None`` where they are more than ``limit``.

    Where they are not few, counting comes first, as it needs no list: common words are common in questions too.
    """
    about = "SELECT rowid FROM document_words WHERE document_words MATCH :match LIMIT :limit"
    inside = """SELECT d.id FROM segment_words w JOIN segments s ON s.id = w.rowid
                JOIN documents d ON d.content_id = s.content_id
                WHERE segment_words MATCH :match AND s.id NOT IN (SELECT segment_id FROM spoken)"""
    asked = {"match": match, "limit": limit + 1}
    rows = catalogue.sql.execute(about, asked)
    few = min(_FEW, limit + 1)
    first = rows.fetchmany(few)
    if len(first) == few and catalogue.sql.execute(f"SELECT count(*) FROM ({about})", asked).fetchone()[0] > limit:
        rows.close()
        return None
    found = {row[0] for row in chain(first, rows)}
    for row in catalogue.sql.execute(inside, {"match": match}):
        found.add(row[0])
        if len(found) > limit:
            return None
    return sorted(found)


def documents_with_part(catalogue: Catalogue, part: str, limit: int) -> list[int] | None:
    """Documents with a part of a word in their path, by id; ``None`` where they are more than ``limit``."""
    rows = catalogue.sql.execute(
        "SELECT rowid FROM name_parts WHERE name_parts MATCH ? LIMIT ?", [match_part(part), limit + 1]
    ).fetchall()
    return None if len(rows) > limit else sorted(row[0] for row in rows)


def count_where(catalogue: Catalogue, condition: Condition | None) -> int:
    """How many documents there are, or those for which a condition holds."""
    sql, values = "SELECT count(*) FROM documents", {}
    if condition is not None:
        sql += f" d JOIN contents c ON c.id = d.content_id WHERE {condition.sql}"
        values = dict(condition.parameters)
    return int(catalogue.sql.execute(sql, values).fetchone()[0])


def values_of(catalogue: Catalogue, expression: str, limit: int) -> list[tuple[str, int]]:
    """The most frequent values of an SQL expression over documents and contents, and how many documents have each."""
    return catalogue.sql.execute(
        f"""SELECT {expression} AS value, count(*) FROM documents d JOIN contents c ON c.id = d.content_id
            GROUP BY 1 HAVING value IS NOT NULL ORDER BY 2 DESC, 1 LIMIT ?""",
        [limit],
    ).fetchall()


def span_of(catalogue: Catalogue, expression: str) -> tuple[Any, Any] | None:
    """The least and the greatest value of an SQL expression over documents and contents."""
    row: tuple[Any, Any] = catalogue.sql.execute(
        f"SELECT min({expression}), max({expression}) FROM documents d JOIN contents c ON c.id = d.content_id"
    ).fetchone()
    return None if row[0] is None else row


def scan_documents(
    catalogue: Catalogue, condition: str = "TRUE", parameters: Mapping[str, object] | Sequence[object] = ()
) -> Iterator[tuple[Any, ...]]:
    """Id, root id, path, modality, size, mtime_ns, caption and description of documents, by id."""
    return catalogue.sql.execute(
        f"""SELECT d.id, d.root_id, d.path, d.modality, d.size, d.mtime_ns, d.caption, c.description
            FROM documents d JOIN contents c ON c.id = d.content_id WHERE {condition} ORDER BY d.id""",
        parameters,
    )


def whole_documents(
    catalogue: Catalogue, condition: Condition, after: int, limit: int
) -> list[tuple[int, int, int, str, str, bytes, int, int, str | None, MediaInfo]]:
    """The next documents with ids above ``after``, by id: id, content id, root id, path, modality, hash, size,
    mtime_ns, caption, and what is said of their sources, in them or beside them.
    """
    rows = catalogue.sql.execute(
        f"""SELECT d.id, c.id, d.root_id, d.path, d.modality, c.hash, d.size, d.mtime_ns, d.caption,
            {INFO_SQL} FROM documents d JOIN contents c ON c.id = d.content_id
            WHERE d.id > :after AND ({condition.sql}) ORDER BY d.id LIMIT :limit""",
        {**condition.parameters, "after": after, "limit": limit},
    )
    return [(*row[:9], MediaInfo(*row[9:])) for row in rows]


def segments_of_contents(
    catalogue: Catalogue, space_id: int, contents: Iterable[int]
) -> Iterator[tuple[int, NewSegment, int | None]]:
    """Content id, segment and row (``None``: it has no vector in the space), in the order of segments."""
    numbers = ", ".join(str(int(content)) for content in contents)
    rows = catalogue.sql.execute(
        f"""SELECT s.content_id, s.start_s, s.end_s, s.text,
                   iif(s.id IN (SELECT segment_id FROM spoken), 'speech', NULL), v.row
            FROM segments s LEFT JOIN vectors v ON v.segment_id = s.id AND v.space_id = ?
            WHERE s.content_id IN ({numbers}) ORDER BY s.content_id, s.ordinal""",
        [space_id],
    )
    return ((content, NewSegment(*segment), row) for content, *segment, row in rows)


def revision(catalogue: Catalogue) -> int:
    """A number that grows with every change to a document."""
    return int(catalogue.sql.execute("SELECT number FROM revision").fetchone()[0])


def words_of_document(catalogue: Catalogue, document_id: int) -> dict[str, str]:
    """What is known of a document in words: its path, folder, caption and description, where it has them.

    What was read in its pictures belongs to its segments: see `mmsearch.store.local.catalogue.read_text.text_of_row`.
    """
    row = catalogue.sql.execute(
        """SELECT d.path, r.path, d.caption, c.description FROM documents d JOIN contents c ON c.id = d.content_id
           JOIN roots r ON r.id = d.root_id WHERE d.id = ?""",
        [document_id],
    ).fetchone()
    if row is None:
        return {}
    written = {"path": row[0], "folder": row[1].rsplit("/", 1)[-1], "caption": row[2], "description": row[3]}
    return {name: text for name, text in written.items() if text}


def looks_of_documents(catalogue: Catalogue, documents: Sequence[int]) -> dict[int, Look]:
    """The sizes and dates of documents."""
    found: dict[int, Look] = {}
    for start in range(0, len(documents), _MANY):
        part = [int(one) for one in documents[start : start + _MANY]]
        rows = catalogue.sql.execute(
            f"""SELECT d.id, c.width, c.height, COALESCE(c.taken_at, d.taken_at)
                FROM documents d JOIN contents c ON c.id = d.content_id WHERE d.id IN ({marks(part)})""",
            part,
        )
        found.update((document, Look(width, height, taken_at)) for document, width, height, taken_at in rows)
    return found
