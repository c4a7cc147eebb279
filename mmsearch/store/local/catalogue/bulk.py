"""Many documents in one go: staged in temporary tables, then copied by SQLite itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

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


@dataclass(frozen=True)
class Imported:
    """Documents that come with their vectors (n, dim) float16, for the dataset whose root has the path ``root``."""

    root: str
    decoding: str
    documents: Sequence[ImportedDocument]
    vectors: npt.NDArray[np.float16]


class BulkInsert:
    """One batch of imported documents. What of it is new is found out at once, from temporary tables; nothing is
    changed before `insert`.

    ``known``: numbers of the documents that are there already; ``replaced``: how many others only take the place of one
    with the same path; ``vectors``: those of the new ones, in their order.
    """

    def __init__(self, catalogue: Catalogue, space_id: int, imported: Imported) -> None:
        self._catalogue, self._sql = catalogue, catalogue.sql
        self._space_id = space_id
        self._imported = imported
        self._root_id = next((root.id for root in catalogue.roots() if root.path == imported.root), None)
        with catalogue.transaction():
            self.known, self._old_contents = self._stage()
        self.replaced = len(self._old_contents)
        self._new = [(n, one) for n, one in enumerate(imported.documents) if n not in self.known]
        self.vectors = imported.vectors[[part.source for _, one in self._new for part in one.segments]]

    def _stage(self) -> tuple[set[int], list[int]]:
        self._sql.execute("DROP TABLE IF EXISTS temp.incoming")
        self._sql.execute(
            f"""CREATE TEMP TABLE incoming (n INTEGER PRIMARY KEY, path TEXT, modality TEXT, hash BLOB, caption TEXT,
                {", ".join(INFO_COLUMNS)})"""
        )
        self._sql.executemany(
            f"INSERT INTO incoming VALUES ({', '.join('?' * (5 + len(INFO_COLUMNS)))})",
            (
                (n, one.path, one.modality, one.hash, one.caption, *one.info)
                for n, one in enumerate(self._imported.documents)
            ),
        )
        # CROSS JOIN keeps SQLite from beginning with another table, of which it knows no sizes.
        same_path = """incoming i CROSS JOIN documents d ON d.root_id = ? AND d.path = i.path
                       CROSS JOIN contents c ON c.id = d.content_id"""
        known = {n for (n,) in self._sql.execute(f"SELECT n FROM {same_path} WHERE c.hash = i.hash", [self._root_id])}
        self._sql.executemany("DELETE FROM incoming WHERE n = ?", ((n,) for n in known))
        replaced = self._sql.execute(f"SELECT d.content_id FROM {same_path}", [self._root_id])
        return known, [content for (content,) in replaced]

    def insert(self, first_row: int) -> None:
        """Inside a transaction: writes what is new; its vectors lie from ``first_row`` on."""
        if self._root_id is None:
            self._root_id = self._catalogue.add_root(self._imported.root, is_relative=False).id
        self._sql.execute(
            "DELETE FROM documents WHERE root_id = ? AND path IN (SELECT path FROM incoming)", [self._root_id]
        )
        self._sql.executemany("DELETE FROM contents WHERE id = ?", ((content,) for content in self._old_contents))
        columns = ", ".join(INFO_COLUMNS)
        content, document, segment = (self._last_id(table) + 1 for table in ("contents", "documents", "segments"))
        self._sql.execute(
            f"""INSERT INTO contents (id, hash, decoding, modality, is_described, {columns})
                SELECT ? + n, hash, ?, modality, 1, {columns} FROM incoming ORDER BY n""",
            [content, self._imported.decoding],
        )
        self._insert_segments(content, segment, first_row)
        self._sql.execute(
            """INSERT INTO documents (id, root_id, path, modality, size, mtime_ns, content_id, caption)
               SELECT ? + n, ?, path, modality, 0, 0, ? + n, caption FROM incoming ORDER BY n""",
            [document, self._root_id, content],
        )
        self._sql.execute("DROP TABLE temp.incoming")

    def _insert_segments(self, content: int, segment: int, first_row: int) -> None:
        self._sql.execute("DROP TABLE IF EXISTS temp.incoming_parts")
        self._sql.execute(
            """CREATE TEMP TABLE incoming_parts (k INTEGER PRIMARY KEY, n INTEGER, ordinal INTEGER, start_s REAL,
               end_s REAL, text TEXT, modality TEXT)"""
        )
        parts = chain.from_iterable(
            ((n, ordinal, part, one.modality) for ordinal, part in enumerate(one.segments)) for n, one in self._new
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
        self._sql.execute(
            """INSERT INTO vectors (space_id, row, segment_id, modality)
               SELECT ?, ? + k, ? + k, modality FROM incoming_parts ORDER BY k""",
            [self._space_id, first_row, segment],
        )
        self._sql.execute("DROP TABLE temp.incoming_parts")

    def _last_id(self, table: str) -> int:
        row = self._sql.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", [table]).fetchone()
        return 0 if row is None else int(row[0])
