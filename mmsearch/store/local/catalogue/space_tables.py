"""Which encoders an index has vectors of, which rows of their vector files count, and whose they are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

import numpy as np

from mmsearch.core.modalities import names_with_pictures
from mmsearch.core.types import EncoderSpec, Modality
from mmsearch.store.local.catalogue import checksums
from mmsearch.store.local.catalogue.row_owners import RowArray, RowOwners, are_right, seal_blocks
from mmsearch.store.local.catalogue.rows import Space
from mmsearch.store.local.catalogue.scopes import ScopeTables
from mmsearch.store.local.files.vectors import VectorFile


class SpaceTables(ScopeTables):
    """The tables ``spaces``, ``dead_rows`` and ``row_blocks``, and ``vectors`` by row."""

    def add_space(self, spec: EncoderSpec, file: str) -> Space:
        """Registers an encoder and the vector file that will hold its vectors."""
        cursor = self.sql.execute(
            "INSERT INTO spaces (spec, dim, file) VALUES (?, ?, ?)",
            [json.dumps(asdict(spec)), spec.dim, file],
        )
        space = Space(int(cursor.lastrowid or 0), spec, file, 0)
        self._forget_checksums(space.id)  # of a file of this name that was dropped
        return space

    def rename_space(self, space: Space, name: str) -> None:
        """Remembers another name that opens the space's encoder; its vectors are the same."""
        spec = asdict(replace(space.spec, name=name))
        self.sql.execute("UPDATE spaces SET spec = ? WHERE id = ?", [json.dumps(spec), space.id])

    def spaces(self) -> list[Space]:
        """All encoders of the index, in the order of their arrival."""
        rows = self.sql.execute("SELECT id, spec, file, row_count FROM spaces ORDER BY id")
        return [Space(id_, _spec_of(spec), file, count) for id_, spec, file, count in rows]

    def row_count(self, space_id: int) -> int:
        """Committed rows of a space's vector file."""
        return int(self._scalar("SELECT row_count FROM spaces WHERE id = ?", [space_id]))

    def state(self, space_id: int) -> tuple[int, int, int]:
        """Changes whenever vectors of the space come or go, for good or for the time of an absence."""
        row = self.sql.execute(
            """SELECT row_count, (SELECT count(*) FROM dead_rows d WHERE d.space_id = t.id),
               (SELECT changes FROM absence) FROM spaces t WHERE t.id = ?""",
            [space_id],
        ).fetchone()
        return (0, 0, 0) if row is None else (int(row[0]), int(row[1]), int(row[2]))

    def dead_rows(self, space_id: int) -> RowArray:
        """Rows of the vector file that a search leaves out, ascending: those given up and those of absent documents."""
        given_up = self.rows_given_up(space_id)
        absent = self.sql.execute(
            """SELECT DISTINCT content_id FROM absent_documents a
               WHERE NOT EXISTS (SELECT 1 FROM documents d WHERE d.content_id = a.content_id)"""
        ).fetchall()
        if not absent:
            return given_up
        contents = np.fromiter((row[0] for row in absent), dtype=np.int64)
        owners = RowOwners.read(self.sql, space_id, self.row_count(space_id), given_up)
        return np.union1d(given_up, np.flatnonzero(np.isin(owners.contents, contents)))

    def rows_given_up(self, space_id: int) -> RowArray:
        """Rows of the vector file that no segment owns any more, ascending."""
        rows = self.sql.execute("SELECT row FROM dead_rows WHERE space_id = ? ORDER BY row", [space_id])
        return np.fromiter((row[0] for row in rows), dtype=np.int64)

    def rows_of_modalities(self, space_id: int, modalities: Iterable[Modality]) -> RowArray:
        """Live rows whose segment is of one of the modalities, ascending."""
        wanted = list(modalities)
        rows = self.sql.execute(
            f"SELECT row FROM vectors WHERE space_id = ? AND modality IN ({marks(wanted)})",
            [space_id, *wanted],
        )
        return np.sort(np.fromiter((row[0] for row in rows), dtype=np.int64))

    def modality_names(self) -> list[Modality]:
        """The modalities that the index has, or had; mmsearch's own ones always."""
        return [name for (name,) in self.sql.execute("SELECT name FROM modalities ORDER BY number")]

    def pictured(self) -> str:
        """The modalities of the index that have pictures, as a list in SQL."""
        return ", ".join("'" + name.replace("'", "''") + "'" for name in names_with_pictures(self.modality_names()))

    def modalities(self, space_id: int) -> set[Modality]:
        """Which modalities have vectors at all."""
        return {
            name
            for name in self.modality_names()
            if self._scalar("SELECT 1 FROM vectors WHERE space_id = ? AND modality = ? LIMIT 1", [space_id, name])
        }

    def renumber_rows(self, space_id: int, alive: RowArray, file: str) -> None:
        """The vectors now lie in ``file``: what was row ``alive[i]`` is row i, and no row is dead any more."""
        self.sql.execute("CREATE TEMP TABLE renumbered (old INTEGER PRIMARY KEY, new INTEGER NOT NULL)")
        self.sql.executemany(
            "INSERT INTO renumbered VALUES (?, ?)", zip(alive.tolist(), range(len(alive)), strict=True)
        )
        # In two steps, as (space, row) is unique at every moment: first beyond all old rows, then down again.
        shift = int(alive[-1]) + 1 if len(alive) else 0
        self.sql.execute(
            """UPDATE vectors SET row = ? + (SELECT new FROM renumbered WHERE old = vectors.row) WHERE space_id = ?""",
            [shift, space_id],
        )
        self.sql.execute("UPDATE vectors SET row = row - ? WHERE space_id = ?", [shift, space_id])
        self.sql.execute("DROP TABLE renumbered")
        self.sql.execute("DELETE FROM dead_rows WHERE space_id = ?", [space_id])
        old = self._vector_file(space_id)
        checksums.cut(self.sql, old.codes.path.name, 0)
        checksums.renumber(self.sql, old.path.name, alive, file)
        self.sql.execute("UPDATE spaces SET file = ? WHERE id = ?", [file, space_id])
        self.set_row_count(space_id, len(alive))

    def set_row_count(self, space_id: int, rows: int) -> None:
        """Declares the first ``rows`` rows of the space's vector file committed; their owners stand here already."""
        self.sql.execute("UPDATE spaces SET row_count = ? WHERE id = ?", [rows, space_id])
        seal_blocks(self.sql, space_id, rows)
        checksums.seal_vectors(self.sql, self._vector_file(space_id), rows)

    def seal(self) -> None:
        """Writes down what an older mmsearch did not: the checksums of all that is committed."""
        for space in self.spaces():
            file = self._vector_file(space.id)
            if checksums.count(self.sql, file.path.name) < space.row_count:
                with self.transaction():
                    checksums.seal_vectors(self.sql, file, space.row_count)

    def _forget_checksums(self, space_id: int) -> None:
        file = self._vector_file(space_id)
        for name in (file.path.name, file.codes.path.name):
            checksums.cut(self.sql, name, 0)

    def _vector_file(self, space_id: int) -> VectorFile:
        name, dim = self.sql.execute("SELECT file, dim FROM spaces WHERE id = ?", [space_id]).fetchone()
        return VectorFile(self.path.parent / name, dim)

    def row_owners(self, space_id: int, row_count: int, dead: RowArray) -> RowOwners:
        """Whose the first ``row_count`` rows of a space are, of which those ``dead`` are nobody's."""
        return RowOwners.read(self.sql, space_id, row_count, dead)

    def has_wrong_blocks(self, space: Space) -> bool:
        """Whether `row_owners` of a space are not what the tables say."""
        return not are_right(self.sql, space.id, space.row_count, self.rows_given_up(space.id))

    def renew_blocks(self, space: Space) -> None:
        """Takes what `row_owners` reads from the tables anew."""
        self.sql.execute("DELETE FROM row_blocks WHERE space_id = ?", [space.id])
        seal_blocks(self.sql, space.id, space.row_count)


@lru_cache(maxsize=64)
def _spec_of(text: str) -> EncoderSpec:
    """Of a row of ``spaces``, which a search reads several times."""
    return EncoderSpec(**json.loads(text))


def marks(values: Sequence[Any]) -> str:
    """A place in a statement for each of some values."""
    return ", ".join("?" * len(values))


def at_or_below(prefix: str) -> tuple[str, list[str]]:
    """A condition (with ``{0}`` for the column) for paths equal to ``prefix`` or below it.

    ``'/'`` is followed by ``'0'``, so the range holds exactly the strings that start with ``prefix/``, and an
    index on the path serves it, unlike LIKE, which would also take ``_`` and ``%`` in names for wildcards.
    """
    if not prefix:
        return "1", []
    return "({0} = ? OR ({0} >= ? AND {0} < ?))", [prefix, prefix + "/", prefix + "0"]
