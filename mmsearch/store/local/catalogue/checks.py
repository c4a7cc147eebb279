"""What must hold between the tables, as questions whose answer must be empty, and how each is mended."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator

import numpy as np

from mmsearch.core.errors import IndexDamaged
from mmsearch.store.local.catalogue.catalogue import Catalogue
from mmsearch.store.local.catalogue.row_owners import RowArray

INCOMPLETE = """SELECT id FROM contents c
    WHERE EXISTS (SELECT 1 FROM documents d WHERE d.content_id = c.id)
    AND NOT EXISTS (SELECT 1 FROM left_out WHERE space_id = :space AND content_id = c.id) AND (
    NOT EXISTS (SELECT 1 FROM segments s WHERE s.content_id = c.id)
    OR EXISTS (SELECT 1 FROM segments s LEFT JOIN vectors v ON v.segment_id = s.id AND v.space_id = :space
               WHERE s.content_id = c.id AND v.row IS NULL)
    OR (SELECT max(ordinal) + 1 <> count(*) FROM segments s WHERE s.content_id = c.id))"""
"""Contents of which a segment, or a segment's vector, is missing for no known reason. Those of absent documents alone
are looked at when they come back."""
UNUSED = """SELECT id FROM contents c WHERE NOT EXISTS (SELECT 1 FROM documents d WHERE d.content_id = c.id)
            AND NOT EXISTS (SELECT 1 FROM absent_documents a WHERE a.content_id = c.id)"""
OTHER_MODALITY = {
    "documents": """SELECT d.id FROM documents d JOIN contents c ON c.id = d.content_id
                    WHERE d.modality <> c.modality""",
    "vectors": """SELECT v.row FROM vectors v JOIN segments s ON s.id = v.segment_id
                  JOIN contents c ON c.id = s.content_id
                  WHERE v.modality <> iif(s.id IN (SELECT segment_id FROM spoken), 'speech', c.modality)""",
}
EMPTY_ROOTS = """SELECT path FROM roots r WHERE NOT EXISTS (SELECT 1 FROM documents WHERE root_id = r.id)
                 AND NOT EXISTS (SELECT 1 FROM absent_documents WHERE root_id = r.id)
                 AND NOT EXISTS (SELECT 1 FROM skipped WHERE root_id = r.id)
                 AND NOT EXISTS (SELECT 1 FROM scopes WHERE root_id = r.id)"""


def broken_database(catalogue: Catalogue) -> list[str]:
    """What SQLite itself finds wrong: damaged pages, broken constraints, references that lead nowhere."""
    try:
        found = [row[0] for row in catalogue.sql.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
        rows = catalogue.sql.execute("PRAGMA foreign_key_check").fetchall()
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return found + [f"a row of {table} refers to a row of {parent} that is not there" for table, _, parent, _ in rows]


def incomplete_contents(catalogue: Catalogue, space_id: int) -> list[tuple[int, str]]:
    """Incomplete contents as (id, path of one of their documents)."""
    return catalogue.sql.execute(
        f"""SELECT c.id, coalesce((SELECT path FROM documents WHERE content_id = c.id LIMIT 1), '')
            FROM contents c WHERE c.id IN ({INCOMPLETE})""",
        {"space": space_id},
    ).fetchall()


def count(catalogue: Catalogue, query: str, space_id: int) -> int:
    """How many rows a question of this module has for an answer."""
    row = catalogue.sql.execute(f"SELECT count(*) FROM ({query})", {"space": space_id}).fetchone()
    return int(row[0])


def empty_roots(catalogue: Catalogue) -> list[str]:
    """Paths of roots that nothing belongs to."""
    return [path for (path,) in catalogue.sql.execute(EMPTY_ROOTS)]


def live_rows(catalogue: Catalogue, space_id: int) -> RowArray:
    """Rows of the vector file that a segment owns, ascending."""
    rows = catalogue.sql.execute("SELECT row FROM vectors WHERE space_id = ? ORDER BY row", [space_id])
    return np.fromiter((row[0] for row in rows), dtype=np.int64)


def owners_of_rows(catalogue: Catalogue, space_id: int, rows: RowArray) -> dict[int, str]:
    """Row → path of a document that it belongs to."""
    found = catalogue.find_rows(space_id, rows.tolist())
    return {segment.row: segment.path for segment in found}


def hashes(catalogue: Catalogue) -> Iterator[tuple[int, str, int, int, bytes]]:
    """Root, path, size, mtime_ns and content hash of every document."""
    return iter(
        catalogue.sql.execute(
            """SELECT d.root_id, d.path, d.size, d.mtime_ns, c.hash
               FROM documents d JOIN contents c ON c.id = d.content_id ORDER BY d.root_id, d.path"""
        )
    )


def mend_rows(catalogue: Catalogue, space_id: int, rows: int, bad_rows: RowArray) -> None:
    """Makes the tables agree with a vector file of ``rows`` rows, of which ``bad_rows`` are useless."""
    sql = catalogue.sql
    catalogue.set_row_count(space_id, rows)
    # A trigger counts each row deleted here as dead, and one that was so before would be twice.
    sql.execute("DELETE FROM dead_rows WHERE space_id = ?", [space_id])
    sql.execute("DELETE FROM vectors WHERE space_id = ? AND row >= ?", [space_id, rows])
    sql.executemany("DELETE FROM vectors WHERE space_id = ? AND row = ?", [(space_id, int(row)) for row in bad_rows])
    _mend_dead_rows(catalogue, space_id, rows)


def contents_of_rows(catalogue: Catalogue, space_id: int, rows: RowArray) -> dict[int, int]:
    """Row of the vector file → the content it belongs to."""
    sql = """SELECT s.content_id FROM vectors v JOIN segments s ON s.id = v.segment_id
             WHERE v.space_id = ? AND v.row = ?"""
    found = {int(row): catalogue.sql.execute(sql, [space_id, int(row)]).fetchone() for row in rows}
    return {row: content[0] for row, content in found.items() if content is not None}


def mend_contents(catalogue: Catalogue, space_id: int, keep: Collection[int] = ()) -> None:
    """Drops what is incomplete with its documents, so that the next look at the disk reads it again; all else stays.

    The contents ``keep`` stay in any case: nobody could read them again. Modalities are taken from the contents.
    """
    sql = catalogue.sql
    broken = [row for row in sql.execute(INCOMPLETE, {"space": space_id}) if row[0] not in keep]
    for table in ("documents", "absent_documents"):
        sql.executemany(f"DELETE FROM {table} WHERE content_id = ?", broken)
    sql.executemany("DELETE FROM contents WHERE id = ?", broken)
    catalogue.drop_unused_contents()
    sql.execute(
        """UPDATE documents SET modality = (SELECT modality FROM contents c WHERE c.id = content_id)
           WHERE modality <> (SELECT modality FROM contents c WHERE c.id = content_id)"""
    )
    content_modality = """(SELECT iif(s.id IN (SELECT segment_id FROM spoken), 'speech', c.modality)
                           FROM segments s JOIN contents c ON c.id = s.content_id
                           WHERE s.id = segment_id)"""
    sql.execute(f"UPDATE vectors SET modality = {content_modality} WHERE modality <> {content_modality}")
    sql.execute("DELETE FROM archives")  # their samples are compared one by one, which costs a hash each
    for space in catalogue.spaces():
        _mend_dead_rows(catalogue, space.id, space.row_count)
        catalogue.renew_blocks(space)


def _mend_dead_rows(catalogue: Catalogue, space_id: int, rows: int) -> None:
    """Dead are exactly the committed rows that no segment owns."""
    catalogue.sql.execute("DELETE FROM dead_rows WHERE space_id = ?", [space_id])
    dead = np.setdiff1d(np.arange(rows), live_rows(catalogue, space_id))
    catalogue.sql.executemany("INSERT INTO dead_rows VALUES (?, ?)", [(space_id, int(row)) for row in dead])


def refuse_broken(catalogue: Catalogue) -> None:
    """Stops before anything is written to a database that SQLite cannot trust.

    Raises:
        IndexDamaged: with what SQLite says.
    """
    found = broken_database(catalogue)
    if found:
        raise IndexDamaged(
            f"the catalogue {catalogue.path} is damaged ({found[0]}) and cannot be mended: restore the index from "
            "a copy, or remove it and index again"
        )
