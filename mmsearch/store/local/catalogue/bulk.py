"""Many documents in one go: staged in temporary tables, then copied by SQLite itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import NamedTuple

from mmsearch.core.types import MediaInfo, Modality
from mmsearch.store.local.catalogue.catalogue import Catalogue

INFO_COLUMNS = tuple(field.name for field in fields(MediaInfo))


class ImportedSegment(NamedTuple):
    """One vector of an imported document; ``source`` is its row among the vectors that were given."""

    source: int
    start_s: float | None
    end_s: float | None
    text: str | None


@dataclass(frozen=True)
class ImportedDocument:
    """A document that comes with its vectors. ``info`` follows `INFO_COLUMNS`."""

    path: str
    modality: Modality
    hash: bytes
    caption: str | None
    info: tuple[object, ...]
    segments: Sequence[ImportedSegment]


class BulkInsert:
    """One batch of imported documents for one root, inside one transaction of the catalogue."""

    def __init__(self, catalogue: Catalogue, space_id: int, root_id: int, decoding: str) -> None:
        self._sql = catalogue.sql
        self._space_id = space_id
        self._root_id = root_id
        self._decoding = decoding

    def stage(self, documents: Sequence[ImportedDocument]) -> tuple[set[int], int]:
        """Takes the documents in; returns the numbers of those that are there already, and how many others only
        take the place of one with the same path.
        """
        self._sql.execute("DROP TABLE IF EXISTS temp.incoming")
        self._sql.execute(
            f"""CREATE TEMP TABLE incoming (n INTEGER PRIMARY KEY, path TEXT, modality TEXT, hash BLOB, caption TEXT,
                {", ".join(INFO_COLUMNS)})"""
        )
        self._sql.executemany(
            f"INSERT INTO incoming VALUES ({', '.join('?' * (5 + len(INFO_COLUMNS)))})",
            ((n, one.path, one.modality, one.hash, one.caption, *one.info) for n, one in enumerate(documents)),
        )
        # CROSS JOIN keeps SQLite from beginning with another table, of which it knows no sizes.
        same_path = """incoming i CROSS JOIN documents d ON d.root_id = ? AND d.path = i.path
                       CROSS JOIN contents c ON c.id = d.content_id"""
        known = {n for (n,) in self._sql.execute(f"SELECT n FROM {same_path} WHERE c.hash = i.hash", [self._root_id])}
        self._sql.executemany("DELETE FROM incoming WHERE n = ?", ((n,) for n in known))
        replaced = self._sql.execute(f"SELECT d.content_id FROM {same_path}", [self._root_id]).fetchall()
        self._sql.execute(
            "DELETE FROM documents WHERE root_id = ? AND path IN (SELECT path FROM incoming)", [self._root_id]
        )
        self._sql.executemany("DELETE FROM contents WHERE id = ?", replaced)
        return known, len(replaced)

    def insert(self, documents: Sequence[ImportedDocument], known: set[int], first_row: int) -> int:
        """Writes the staged documents; their vectors lie from ``first_row`` on, in their order. Returns how many
        vectors that are.
        """
        columns = ", ".join(INFO_COLUMNS)
        content, document, segment = (self._last_id(table) + 1 for table in ("contents", "documents", "segments"))
        self._sql.execute(
            f"""INSERT INTO contents (id, hash, decoding, modality, {columns})
                SELECT ? + n, hash, ?, modality, {columns} FROM incoming ORDER BY n""",
            [content, self._decoding],
        )
        new = ((n, one) for n, one in enumerate(documents) if n not in known)
        parts = chain.from_iterable(
            ((n, ordinal, part, one.modality) for ordinal, part in enumerate(one.segments)) for n, one in new
        )
        rows = self._insert_segments(parts, content, segment, first_row)
        self._sql.execute(
            """INSERT INTO documents (id, root_id, path, modality, size, mtime_ns, content_id, caption)
               SELECT ? + n, ?, path, modality, 0, 0, ? + n, caption FROM incoming ORDER BY n""",
            [document, self._root_id, content],
        )
        self._sql.execute("DROP TABLE temp.incoming")
        return rows

    def _insert_segments(
        self, parts: Iterable[tuple[int, int, ImportedSegment, Modality]], content: int, segment: int, first_row: int
    ) -> int:
        self._sql.execute("DROP TABLE IF EXISTS temp.incoming_parts")
        self._sql.execute(
            """CREATE TEMP TABLE incoming_parts (k INTEGER PRIMARY KEY, n INTEGER, ordinal INTEGER, start_s REAL,
               end_s REAL, text TEXT, modality TEXT)"""
        )
        self._sql.executemany(
            "INSERT INTO incoming_parts VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (k, n, ordinal, part.start_s, part.end_s, part.text, modality)
                for k, (n, ordinal, part, modality) in enumerate(parts)
            ),
        )
        self._sql.execute(
            """INSERT INTO segments (id, content_id, ordinal, start_s, end_s, text)
               SELECT ? + k, ? + n, ordinal, start_s, end_s, text FROM incoming_parts ORDER BY k""",
            [segment, content],
        )
        cursor = self._sql.execute(
            """INSERT INTO vectors (space_id, row, segment_id, modality)
               SELECT ?, ? + k, ? + k, modality FROM incoming_parts ORDER BY k""",
            [self._space_id, first_row, segment],
        )
        self._sql.execute("DROP TABLE temp.incoming_parts")
        return int(cursor.rowcount)

    def _last_id(self, table: str) -> int:
        row = self._sql.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", [table]).fetchone()
        return 0 if row is None else int(row[0])
