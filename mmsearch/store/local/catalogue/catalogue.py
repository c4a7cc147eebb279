"""All statements that read and write the catalogue."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from mmsearch.core.modalities import MODALITIES
from mmsearch.core.types import NOTHING_BESIDE, Beside, MediaInfo, Modality
from mmsearch.store.local.catalogue.absence import AbsenceTables
from mmsearch.store.local.catalogue.rows import FOUND, Found, KnownDocument, NewContent, Root, Space
from mmsearch.store.local.catalogue.space_tables import at_or_below, marks

BESIDE_COLUMNS = ("taken_at", "camera", "lens", "latitude", "longitude", "rating")
"""Of documents and of contents: what is written beside a file, and what it says itself."""
_MANY = 30_000
"""Values bound to one statement at most; SQLite allows 32,766."""


class Catalogue(AbsenceTables):
    """The database of one index directory."""

    # Roots

    def roots(self) -> list[Root]:
        """All roots, oldest first."""
        rows = self.sql.execute("SELECT id, path, is_relative FROM roots ORDER BY id")
        return [Root(id_, path, bool(relative)) for id_, path, relative in rows]

    def add_root(self, path: str, *, is_relative: bool) -> Root:
        """Registers a root."""
        cursor = self.sql.execute("INSERT INTO roots (path, is_relative) VALUES (?, ?)", [path, int(is_relative)])
        return Root(int(cursor.lastrowid or 0), path, is_relative)

    def absorb_root(self, inner: int, outer: int, prefix: str) -> None:
        """Moves all documents of root ``inner`` to root ``outer``, where they lie below ``prefix``."""
        for table in ("documents", "absent_documents", "skipped", "archives", "folders", "removed"):
            self.sql.execute(
                f"UPDATE OR REPLACE {table} SET root_id = ?, path = rtrim(? || '/' || path, '/') WHERE root_id = ?",
                [outer, prefix, inner],
            )
        self.absorb_scopes(inner, outer, prefix)
        self.sql.execute("DELETE FROM roots WHERE id = ?", [inner])

    def drop_empty_roots(self, keep: Iterable[int] = ()) -> None:
        """Forgets roots without documents and without skipped files."""
        kept = list(keep)
        self.sql.execute(
            f"""DELETE FROM roots WHERE id NOT IN ({marks(kept)})
                AND NOT EXISTS (SELECT 1 FROM documents WHERE root_id = roots.id)
                AND NOT EXISTS (SELECT 1 FROM absent_documents WHERE root_id = roots.id)
                AND NOT EXISTS (SELECT 1 FROM skipped WHERE root_id = roots.id)""",
            kept,
        )

    # Documents

    def documents_below(self, root_id: int, prefix: str = "") -> Iterator[KnownDocument]:
        """Documents of a root at or below ``prefix`` (all for ``""``), ascending by path in code point order, with the
        absent ones among them.
        """
        where, parameters = at_or_below(prefix)

        def of(table: str, is_absent: int) -> Iterator[KnownDocument]:
            rows = self.sql.execute(
                f"""SELECT d.id, d.path, d.size, d.mtime_ns, c.decoding, d.content_id, d.sidecars, {is_absent}
                    FROM {table} d JOIN contents c ON c.id = d.content_id
                    WHERE d.root_id = ? AND {where.format("d.path")} ORDER BY d.path""",
                [root_id, *parameters],
            )
            return map(KnownDocument._make, rows)

        if not self.has_absent(root_id):
            return of("documents", 0)
        return heapq.merge(of("documents", 0), of("absent_documents", 1), key=lambda document: document.path)

    def find_content(self, hash_: bytes, decoding: str, space_id: int) -> tuple[int, Modality] | None:
        """The content with these bytes whose segments all have vectors of the space; its id and modality."""
        row = self.sql.execute(
            """SELECT id, modality FROM contents c WHERE hash = ? AND decoding = ? AND NOT EXISTS (
                 SELECT 1 FROM segments s LEFT JOIN vectors v ON v.segment_id = s.id AND v.space_id = ?
                 WHERE s.content_id = c.id AND v.row IS NULL)""",
            [hash_, decoding, space_id],
        ).fetchone()
        return None if row is None else (row[0], row[1])

    def documents_of_content(self, content_id: int) -> list[tuple[int, Root, str]]:
        """Where a content lies: document id, root and path of each document, absent ones last."""
        rows = self.sql.execute(
            """SELECT d.id, r.id, r.path, r.is_relative, d.path FROM (
                 SELECT 0 AS is_absent, id, root_id, path FROM documents WHERE content_id = :content UNION ALL
                 SELECT 1, id, root_id, path FROM absent_documents WHERE content_id = :content
               ) d JOIN roots r ON r.id = d.root_id ORDER BY d.is_absent, d.id""",
            {"content": content_id},
        )
        return [(id_, Root(root, root_path, bool(rel)), path) for id_, root, root_path, rel, path in rows]

    def add_content(self, space: Space, content: NewContent) -> int:
        """Writes a content, its segments and the rows of their vectors; returns the content's id.

        A content that is there without all vectors of this space gets them: where it has the same segments as
        before, the vectors that other spaces have of them stay.
        """
        found = self.sql.execute(
            "SELECT id FROM contents WHERE hash = ? AND decoding = ?", [content.hash, content.decoding]
        ).fetchone()
        if found is not None:
            self._add_vectors(space, found[0], content)
            return int(found[0])
        info = asdict(content.info)
        columns = ["hash", "decoding", "modality", *info]
        cursor = self.sql.execute(
            f"INSERT INTO contents (is_described, {', '.join(columns)}) VALUES (1, {marks(columns)})",
            [content.hash, content.decoding, content.modality, *info.values()],
        )
        content_id = int(cursor.lastrowid or 0)
        self._add_segments(space, content_id, content)
        return content_id

    def _add_vectors(self, space: Space, content_id: int, content: NewContent) -> None:
        segments = self.sql.execute(
            """SELECT id, start_s, end_s, text FROM segments
               WHERE content_id = ? AND id NOT IN (SELECT segment_id FROM spoken) ORDER BY ordinal""",
            [content_id],
        ).fetchall()
        self._forget_speech_without_vectors(space, content_id)
        self.sql.execute("DELETE FROM left_out WHERE space_id = ? AND content_id = ?", [space.id, content_id])
        if [(one.start_s, one.end_s, one.text) for one in content.segments] != [row[1:] for row in segments]:
            self.sql.execute("DELETE FROM segments WHERE content_id = ?", [content_id])
            self.sql.execute("DELETE FROM heard WHERE content_id = ?", [content_id])
            self._add_segments(space, content_id, content)
            return
        self.sql.executemany(
            "DELETE FROM vectors WHERE segment_id = ? AND space_id = ?", [(row[0], space.id) for row in segments]
        )
        self.sql.executemany(
            "INSERT INTO vectors (space_id, row, segment_id, modality) VALUES (?, ?, ?, ?)",
            [
                (space.id, new.row, row[0], content.modality)
                for new, row in zip(content.segments, segments, strict=True)
            ],
        )

    def _forget_speech_without_vectors(self, space: Space, content_id: int) -> None:
        """What is said in it has none of this space: it is read again."""
        lacking = """SELECT s.id FROM segments s JOIN spoken p ON p.segment_id = s.id WHERE s.content_id = ?
            AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.segment_id = s.id AND v.space_id = ?)"""
        if self._scalar(f"{lacking} LIMIT 1", [content_id, space.id]) is not None:
            self.sql.execute(
                "DELETE FROM segments WHERE content_id = ? AND id IN (SELECT segment_id FROM spoken)", [content_id]
            )
            self.sql.execute("DELETE FROM heard WHERE content_id = ?", [content_id])

    def _add_segments(self, space: Space, content_id: int, content: NewContent) -> None:
        for ordinal, segment in enumerate(content.segments):
            cursor = self.sql.execute(
                "INSERT INTO segments (content_id, ordinal, start_s, end_s, text) VALUES (?, ?, ?, ?, ?)",
                [content_id, ordinal, segment.start_s, segment.end_s, segment.text],
            )
            self.sql.execute(
                "INSERT INTO vectors (space_id, row, segment_id, modality) VALUES (?, ?, ?, ?)",
                [space.id, segment.row, cursor.lastrowid, content.modality],
            )

    def put_document(
        self, root_id: int, path: str, modality: Modality, size: int, mtime_ns: int, content_id: int,
        beside: Beside = NOTHING_BESIDE, sidecars: str = "",
    ) -> None:  # fmt: skip
        """Adds a document, or points the one at this path to its new content; it is no longer skipped."""
        row = {"modality": modality, "size": size, "mtime_ns": mtime_ns, "content_id": content_id, "sidecars": sidecars}
        row |= self._written_beside(beside, content_id)
        self.sql.execute(
            f"""INSERT INTO documents (root_id, path, {", ".join(row)}) VALUES (?, ?, {marks(list(row))})
                ON CONFLICT (root_id, path) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in row)}""",
            [root_id, path, *row.values()],
        )
        self._is_there_again(root_id, path)

    def _written_beside(self, beside: Beside, content_id: int) -> dict[str, Any]:
        """The columns of a document that say what is written beside it; of its date, only if that counts."""
        row = {name: getattr(beside.info, name) for name in BESIDE_COLUMNS}
        if row["taken_at"] is not None and beside.rule != "always":
            row["taken_at"] = beside.date_for(self._scalar("SELECT taken_at FROM contents WHERE id = ?", [content_id]))
        return {"caption": beside.caption, **row}

    def _is_there_again(self, root_id: int, path: str) -> None:
        """A document stands at this path now: it is no longer skipped, and nothing else is absent from there."""
        for table in ("skipped", "absent_documents"):
            self.sql.execute(f"DELETE FROM {table} WHERE root_id = ? AND path = ?", [root_id, path])

    def move_document(
        self, document_id: int, root_id: int, path: str, size: int, mtime_ns: int, content_id: int,
        beside: Beside = NOTHING_BESIDE, sidecars: str = "",
    ) -> None:  # fmt: skip
        """A document's file was found at another place with the same content."""
        self.bring_back([document_id])
        self.sql.execute(
            "DELETE FROM documents WHERE root_id = ? AND path = ? AND id <> ?", [root_id, path, document_id]
        )
        row = {"root_id": root_id, "path": path, "size": size, "mtime_ns": mtime_ns, "sidecars": sidecars}
        row |= self._written_beside(beside, content_id)
        self.sql.execute(
            f"UPDATE documents SET {', '.join(f'{name} = ?' for name in row)} WHERE id = ?",
            [*row.values(), document_id],
        )
        self._is_there_again(root_id, path)

    def forget_times(self, root_id: int, paths: Iterable[str]) -> None:
        """Makes the next run read these documents again, whatever the disk says of their time."""
        self.sql.executemany(
            "UPDATE documents SET mtime_ns = -1 WHERE root_id = ? AND path = ?", [(root_id, path) for path in paths]
        )

    def remove_documents(self, documents: Sequence[tuple[int, int, str]]) -> int:
        """Removes documents given as (id, root id, path), unless they moved since; returns how many."""
        # Not total_changes, which also counts what the triggers change.
        removed = 0
        for table in ("documents", "absent_documents"):
            cursor = self.sql.executemany(f"DELETE FROM {table} WHERE id = ? AND root_id = ? AND path = ?", documents)
            removed += max(0, cursor.rowcount)
        return removed

    def remove_below(self, root_id: int, prefix: str) -> int:
        """Removes the documents and skipped files of a root at or below ``prefix``; returns how many documents."""
        where, parameters = at_or_below(prefix)
        condition = f"root_id = ? AND {where.format('path')}"
        removed = sum(
            self.sql.execute(f"DELETE FROM {table} WHERE {condition}", [root_id, *parameters]).rowcount
            for table in ("documents", "absent_documents")
        )
        for table in ("skipped", "folders"):
            self.sql.execute(f"DELETE FROM {table} WHERE {condition}", [root_id, *parameters])
        return removed

    def drop_unused_contents(self) -> None:
        """Forgets contents that no document points at, absent or not; their vectors' rows become dead."""
        self.sql.execute(
            """DELETE FROM contents WHERE NOT EXISTS (SELECT 1 FROM documents WHERE content_id = contents.id)
               AND NOT EXISTS (SELECT 1 FROM absent_documents WHERE content_id = contents.id)"""
        )

    def undescribed(self, root_id: int, prefix: str, after: int, limit: int) -> list[tuple[int, str, int, int]]:
        """Contents of which an older version did not read all that they say of themselves, each with one of the places
        of a root at or below ``prefix`` where it lies: id, path, size and mtime_ns; by id, from behind ``after``.
        """
        where, parameters = at_or_below(prefix)
        rows = self.sql.execute(
            f"""SELECT c.id, d.path, d.size, d.mtime_ns FROM contents c JOIN documents d ON d.content_id = c.id
                WHERE c.is_described = 0 AND c.id > ? AND d.root_id = ? AND {where.format("d.path")}
                GROUP BY c.id ORDER BY c.id LIMIT ?""",
            [after, root_id, *parameters, limit],
        )
        return rows.fetchall()

    def describe(self, content_id: int, info: MediaInfo | None) -> None:
        """What a content says of itself, all but its sizes, as read now. What it does not say stays as it was."""
        row = {} if info is None else {name: getattr(info, name) for name in (*BESIDE_COLUMNS, "description")}
        changes = "".join(f"{name} = COALESCE(?, {name}), " for name in row)
        self.sql.execute(f"UPDATE contents SET {changes}is_described = 1 WHERE id = ?", [*row.values(), content_id])

    def mark_outdated(self, content_id: int) -> None:
        """No decoder makes of a file today what this content is: its documents are read again."""
        self.sql.execute(
            "UPDATE contents SET decoding = decoding || ' outdated', is_described = 1 WHERE id = ?", [content_id]
        )

    def sidecars_of(self, root_id: int, path: str) -> str | None:
        """What lay beside the document at a path, absent or not; ``None`` where there is none."""
        for table in ("documents", "absent_documents"):
            found = self._scalar(f"SELECT sidecars FROM {table} WHERE root_id = ? AND path = ?", [root_id, path])
            if found is not None:
                return str(found)
        return None

    def is_left_out(self, root_id: int, path: str) -> bool:
        """Whether the file at a path was skipped, or taken out by hand."""
        return any(
            self._scalar(f"SELECT 1 FROM {table} WHERE root_id = ? AND path = ?", [root_id, path]) is not None
            for table in ("skipped", "removed")
        )

    # Skipped files

    def skipped_below(self, root_id: int, prefix: str = "") -> dict[str, list[Any]]:
        """Path → [size, mtime_ns, ctime_ns, decoding, reason] of the files that were skipped last time."""
        where, parameters = at_or_below(prefix)
        rows = self.sql.execute(
            f"""SELECT path, size, mtime_ns, ctime_ns, decoding, reason FROM skipped
                WHERE root_id = ? AND {where.format("path")}""",
            [root_id, *parameters],
        )
        return {path: rest for path, *rest in rows}

    def put_skipped(
        self, root_id: int, path: str, size: int, mtime_ns: int, ctime_ns: int, decoding: str, reason: str
    ) -> None:
        """Remembers why a file was skipped."""
        self.sql.execute(
            "INSERT OR REPLACE INTO skipped VALUES (?, ?, ?, ?, ?, ?, ?)",
            [root_id, path, size, mtime_ns, ctime_ns, decoding, reason],
        )

    def forget_skipped(self, root_id: int, paths: Iterable[str]) -> None:
        """Drops the memory of skipped files that are gone."""
        self.sql.executemany("DELETE FROM skipped WHERE root_id = ? AND path = ?", [(root_id, path) for path in paths])

    # What a search and `status` ask

    def find_rows(self, space_id: int, rows: Sequence[int]) -> list[Found]:
        """The documents behind rows of the vector file; a row owned by several documents comes once for each."""
        found: list[Found] = []
        for start in range(0, len(rows), _MANY):
            part = [int(row) for row in rows[start : start + _MANY]]
            cursor = self.sql.execute(
                f"""SELECT {FOUND}
                    FROM vectors v JOIN segments s ON s.id = v.segment_id
                    JOIN documents d ON d.content_id = s.content_id JOIN roots r ON r.id = d.root_id
                    WHERE v.space_id = ? AND v.row IN ({marks(part)})""",
                [space_id, *part],
            )
            found.extend(map(Found.of, cursor))
        return found

    def counts(self) -> dict[str, int]:
        """Documents of each modality, absent ones among them, and segments, skipped files and dead rows; ``absent``:
        how many of the documents are.
        """
        numbers = dict.fromkeys(MODALITIES.own, 0)
        for table in ("documents", "absent_documents"):
            for modality, count in self.sql.execute(f"SELECT modality, count(*) FROM {table} GROUP BY modality"):
                numbers[modality] = numbers.get(modality, 0) + count
        numbers["absent"] = self._scalar("SELECT count(*) FROM absent_documents")
        for table in ("segments", "skipped", "dead_rows"):
            numbers[table] = self._scalar(f"SELECT count(*) FROM {table}")
        return numbers
