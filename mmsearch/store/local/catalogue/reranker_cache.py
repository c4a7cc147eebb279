"""Statements about the reranker cache: which row of its file holds the image tokens of which segment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmsearch.core.modalities import names_with_pictures
from mmsearch.store.local.catalogue.catalogue import Catalogue
from mmsearch.store.local.catalogue.checksums import cut, renumber, seal_rows
from mmsearch.store.local.catalogue.row_owners import RowArray
from mmsearch.store.local.catalogue.space_tables import marks
from mmsearch.store.local.files.tokens import TokenFile


class TokenTable(NamedTuple):
    """Whose tokens are kept: ``reranker`` opens it, ``digest`` and ``shape`` are of its `RerankerSpec`."""

    id: int
    reranker: str
    digest: str
    shape: tuple[int, ...]
    file: str
    row_count: int


def token_table(catalogue: Catalogue) -> TokenTable | None:
    """The one that there is, if tokens are kept."""
    row = catalogue.sql.execute("SELECT id, reranker, digest, shape, file, row_count FROM token_files").fetchone()
    return None if row is None else _table(*row)


def add_token_table(catalogue: Catalogue, reranker: str, digest: str, shape: tuple[int, ...]) -> TokenTable:
    """Registers whose tokens are to be kept, and the file that will hold them."""
    taken = catalogue.sql.execute("SELECT coalesce(max(id), 0) + 1 FROM token_files").fetchone()[0]
    file = f"tokens-{digest[:12]}-{taken}.i8"
    cut(catalogue.sql, file, 0)
    cursor = catalogue.sql.execute(
        "INSERT INTO token_files (reranker, digest, shape, file) VALUES (?, ?, ?, ?)",
        [reranker, digest, json.dumps(shape), file],
    )
    return TokenTable(int(cursor.lastrowid or 0), reranker, digest, shape, file, 0)


def drop_token_table(catalogue: Catalogue, table: TokenTable) -> None:
    """Forgets all tokens of a reranker."""
    catalogue.sql.execute("DELETE FROM token_files WHERE id = ?", [table.id])
    cut(catalogue.sql, table.file, 0)


def put_tokens(catalogue: Catalogue, table: TokenTable, first: int, segments: Sequence[int]) -> None:
    """``segments``, by id, have their tokens at row ``first`` of the file and the rows after it, which are committed
    with that; a segment that is gone leaves its row unused.
    """
    catalogue.sql.executemany(
        "INSERT OR REPLACE INTO tokens (file_id, place, segment_id) SELECT ?, ?, id FROM segments WHERE id = ?",
        [(table.id, first + number, segment) for number, segment in enumerate(segments)],
    )
    set_token_count(catalogue, table, first + len(segments))


def set_token_count(catalogue: Catalogue, table: TokenTable, rows: int) -> None:
    """Declares the first ``rows`` rows of the token file committed."""
    catalogue.sql.execute("UPDATE token_files SET row_count = ? WHERE id = ?", [rows, table.id])
    seal_rows(catalogue.sql, TokenFile(catalogue.path.parent / table.file, table.shape), rows)


def forget_tokens(catalogue: Catalogue, table: TokenTable, rows: int, bad: Sequence[int] = ()) -> None:
    """Only the first ``rows`` rows are left, and those at ``bad`` are useless: their segments have no tokens."""
    catalogue.sql.execute("DELETE FROM tokens WHERE file_id = ? AND place >= ?", [table.id, rows])
    catalogue.sql.executemany(
        "DELETE FROM tokens WHERE file_id = ? AND place = ?", [(table.id, int(place)) for place in bad]
    )
    set_token_count(catalogue, table, min(rows, table.row_count))


def places_of_rows(
    catalogue: Catalogue, digest: str, space_id: int, rows: Sequence[int]
) -> tuple[TokenTable | None, dict[int, int]]:
    """Row of the vector file → place in the token file, and that file, as one statement sees them together."""
    found = catalogue.sql.execute(
        f"""SELECT v.row, t.place, f.id, f.reranker, f.digest, f.shape, f.file, f.row_count
            FROM token_files f JOIN tokens t ON t.file_id = f.id JOIN vectors v ON v.segment_id = t.segment_id
            WHERE f.digest = ? AND v.space_id = ? AND v.row IN ({marks(rows)})""",
        [digest, space_id, *(int(row) for row in rows)],
    ).fetchall()
    if not found:
        return None, {}
    return _table(*found[0][2:]), {row: place for row, place, *_ in found}


def live_places(catalogue: Catalogue, table: TokenTable) -> RowArray:
    """Rows of the token file that belong to a segment, ascending."""
    rows = catalogue.sql.execute("SELECT place FROM tokens WHERE file_id = ? ORDER BY place", [table.id])
    return np.fromiter((row[0] for row in rows), dtype=np.int64)


def token_counts(catalogue: Catalogue, table: TokenTable, space_id: int) -> tuple[int, int]:
    """(pictures and frames with tokens, all pictures and frames)."""
    kept = catalogue.sql.execute("SELECT count(*) FROM tokens WHERE file_id = ?", [table.id]).fetchone()[0]
    return int(kept), len(catalogue.rows_of_modalities(space_id, names_with_pictures(catalogue.modality_names())))


def renumber_tokens(catalogue: Catalogue, table: TokenTable, alive: RowArray, file: str) -> None:
    """The tokens now lie in ``file``: what was place ``alive[i]`` is place i."""
    kept = catalogue.sql.execute(
        "SELECT segment_id FROM tokens WHERE file_id = ? ORDER BY place", [table.id]
    ).fetchall()
    catalogue.sql.execute("DELETE FROM tokens WHERE file_id = ?", [table.id])
    catalogue.sql.executemany(
        "INSERT INTO tokens (file_id, place, segment_id) VALUES (?, ?, ?)",
        [(table.id, place, segment) for place, (segment,) in enumerate(kept)],
    )
    catalogue.sql.execute("UPDATE token_files SET file = ?, row_count = ? WHERE id = ?", [file, len(alive), table.id])
    renumber(catalogue.sql, table.file, alive, file)


def _table(id_: int, reranker: str, digest: str, shape: str, file: str, row_count: int) -> TokenTable:
    return TokenTable(id_, reranker, digest, tuple(json.loads(shape)), file, row_count)
