"""Documents whose files are not there for the moment, and what tells a folder from another one at the same place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mmsearch.store.local.catalogue.space_tables import SpaceTables, at_or_below


class FolderIdentity(NamedTuple):
    """Which folder it is that lies at a path: two with one name differ in this, a folder and what is mounted on it
    too. ``is_mount``: it lies on another device than the folder above it.

    A device may have another number after a restart; an inode stays, and so does whether something is mounted.
    """

    device: int
    inode: int
    is_mount: bool


class AbsenceTables(SpaceTables):
    """The tables ``absent_documents``, ``folders`` and ``removed``."""

    def has_absent(self, root_id: int) -> bool:
        """Whether any document of a root is absent."""
        return self._scalar("SELECT 1 FROM absent_documents WHERE root_id = ? LIMIT 1", [root_id]) is not None

    def count_absent(self, root_id: int, prefix: str = "") -> int:
        """Absent documents of a root at or below a path."""
        return self._count("absent_documents", root_id, prefix)

    def count_present(self, root_id: int, prefix: str, last_id: int) -> int:
        """Documents of a root at or below a path that are not absent, with ids up to ``last_id``."""
        return self._count("documents", root_id, prefix, last_id)

    def last_document(self) -> int:
        """The id of the newest document that there ever was."""
        return self._scalar("SELECT seq FROM sqlite_sequence WHERE name = 'documents'") or 0

    def still_there(self, documents: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
        """Those of some documents, given as (id, root id, path), that have not moved or gone since."""
        return self._those_in("documents", documents)

    def still_absent(self, documents: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
        """Those of some documents, given as (id, root id, path), that are absent."""
        return self._those_in("absent_documents", documents)

    def _those_in(self, table: str, documents: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
        sql = f"SELECT 1 FROM {table} WHERE id = ? AND root_id = ? AND path = ?"
        return [one for one in documents if self.sql.execute(sql, one).fetchone()]

    def keep_absent(self, documents: Iterable[int]) -> None:
        """Marks documents absent: they keep their ids, contents and vectors, and no search finds them."""
        self._move(documents, "documents", "absent_documents")

    def bring_back(self, documents: Iterable[int]) -> None:
        """Absent documents whose files are there again; others in the list stay as they are."""
        self._move(documents, "absent_documents", "documents")

    def _move(self, documents: Iterable[int], source: str, target: str) -> None:
        columns = ", ".join(row[1] for row in self.sql.execute("PRAGMA table_info(absent_documents)"))
        moved = 0
        for document in documents:
            moved += self.sql.execute(
                f"INSERT OR REPLACE INTO {target} ({columns}) SELECT {columns} FROM {source} WHERE id = ?", [document]
            ).rowcount
            self.sql.execute(f"DELETE FROM {source} WHERE id = ?", [document])
        if moved:
            self.sql.execute("UPDATE absence SET changes = changes + 1")

    def has_all_vectors(self, content_id: int, space_id: int) -> bool:
        """Whether every segment of a content has a vector of the space."""
        lacking = self._scalar(
            """SELECT 1 FROM segments s WHERE s.content_id = ? AND NOT EXISTS
               (SELECT 1 FROM vectors v WHERE v.segment_id = s.id AND v.space_id = ?) LIMIT 1""",
            [content_id, space_id],
        )
        return lacking is None

    # Folders

    def folders_below(self, root_id: int, prefix: str = "") -> dict[str, FolderIdentity]:
        """Path in the root → what was known of the folder when files were last met in it."""
        where, parameters = at_or_below(prefix)
        rows = self.sql.execute(
            f"SELECT path, device, inode, is_mount FROM folders WHERE root_id = ? AND {where.format('path')}",
            [root_id, *parameters],
        )
        return {path: FolderIdentity(device, inode, bool(is_mount)) for path, device, inode, is_mount in rows}

    def put_folders(self, root_id: int, folders: Mapping[str, FolderIdentity]) -> None:
        """Remembers which folders lie at these paths."""
        self.sql.executemany(
            "INSERT OR REPLACE INTO folders VALUES (?, ?, ?, ?, ?)",
            ((root_id, path, one.device, one.inode, int(one.is_mount)) for path, one in folders.items()),
        )

    # Taken out by hand

    def removed_paths(self, root_id: int) -> list[str]:
        """Paths in a root that were taken out and are not to come back by themselves."""
        return [path for (path,) in self.sql.execute("SELECT path FROM removed WHERE root_id = ?", [root_id])]

    def put_removed(self, root_id: int, path: str) -> None:
        """Remembers that a path was taken out."""
        self.sql.execute("INSERT OR IGNORE INTO removed VALUES (?, ?)", [root_id, path])

    def clear_removed(self, root_id: int, prefix: str) -> None:
        """Someone wants to have indexed again what lies at, below or around a path."""
        where, parameters = at_or_below(prefix)
        self.sql.execute(f"DELETE FROM removed WHERE root_id = ? AND {where.format('path')}", [root_id, *parameters])
        parts = prefix.split("/")
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        self.sql.executemany("DELETE FROM removed WHERE root_id = ? AND path = ?", ((root_id, path) for path in above))

    def _count(self, table: str, root_id: int, prefix: str, last_id: int = (1 << 63) - 1) -> int:
        where, parameters = at_or_below(prefix)
        sql = f"SELECT count(*) FROM {table} WHERE root_id = ? AND {where.format('path')} AND id <= ?"
        return int(self._scalar(sql, [root_id, *parameters, last_id]))
