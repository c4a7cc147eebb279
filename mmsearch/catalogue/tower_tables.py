"""Which encoders an index has vectors of, which rows of their vector files count, and whose they are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from mmsearch.catalogue.row_owners import RowArray, RowOwners, are_right, seal_blocks
from mmsearch.catalogue.rows import Tower
from mmsearch.catalogue.scopes import ScopeTables
from mmsearch.types import MODALITIES, EncoderSpec, Modality


class TowerTables(ScopeTables):
    """The tables ``towers``, ``dead_rows`` and ``row_blocks``, and ``vectors`` by row."""

    def add_tower(self, spec: EncoderSpec, file: str) -> Tower:
        """Registers an encoder and the vector file that will hold its vectors."""
        cursor = self.sql.execute(
            "INSERT INTO towers (spec, dim, file) VALUES (?, ?, ?)",
            [json.dumps(asdict(spec)), spec.dim, file],
        )
        return Tower(int(cursor.lastrowid or 0), spec, file, 0)

    def rename_tower(self, tower: Tower, name: str) -> None:
        """Remembers another name that opens the tower's encoder; its vectors are the same."""
        spec = asdict(replace(tower.spec, name=name))
        self.sql.execute("UPDATE towers SET spec = ? WHERE id = ?", [json.dumps(spec), tower.id])

    def towers(self) -> list[Tower]:
        """All encoders of the index, in the order of their arrival."""
        rows = self.sql.execute("SELECT id, spec, file, row_count FROM towers ORDER BY id")
        return [Tower(id_, EncoderSpec(**json.loads(spec)), file, count) for id_, spec, file, count in rows]

    def row_count(self, tower_id: int) -> int:
        """Committed rows of a tower's vector file."""
        return int(self._scalar("SELECT row_count FROM towers WHERE id = ?", [tower_id]))

    def state(self, tower_id: int) -> tuple[int, int]:
        """A pair that changes whenever vectors of the tower come or go."""
        row = self.sql.execute(
            "SELECT row_count, (SELECT count(*) FROM dead_rows d WHERE d.tower_id = t.id) FROM towers t WHERE t.id = ?",
            [tower_id],
        ).fetchone()
        return (0, 0) if row is None else (int(row[0]), int(row[1]))

    def dead_rows(self, tower_id: int) -> RowArray:
        """Rows of the vector file that no segment owns any more, ascending."""
        rows = self.sql.execute("SELECT row FROM dead_rows WHERE tower_id = ? ORDER BY row", [tower_id])
        return np.fromiter((row[0] for row in rows), dtype=np.int64)

    def rows_of_modalities(self, tower_id: int, modalities: Iterable[Modality]) -> RowArray:
        """Live rows whose segment is of one of the modalities, ascending."""
        wanted = list(modalities)
        rows = self.sql.execute(
            f"SELECT row FROM vectors WHERE tower_id = ? AND modality IN ({marks(wanted)})",
            [tower_id, *wanted],
        )
        return np.sort(np.fromiter((row[0] for row in rows), dtype=np.int64))

    def modalities(self, tower_id: int) -> set[Modality]:
        """Which modalities have vectors at all."""
        return {
            name
            for name in MODALITIES
            if self._scalar("SELECT 1 FROM vectors WHERE tower_id = ? AND modality = ? LIMIT 1", [tower_id, name])
        }

    def renumber_rows(self, tower_id: int, alive: RowArray, file: str) -> None:
        """The vectors now lie in ``file``: what was row ``alive[i]`` is row i, and no row is dead any more."""
        self.sql.execute("CREATE TEMP TABLE renumbered (old INTEGER PRIMARY KEY, new INTEGER NOT NULL)")
        self.sql.executemany(
            "INSERT INTO renumbered VALUES (?, ?)", zip(alive.tolist(), range(len(alive)), strict=True)
        )
        # In two steps, as (tower, row) is unique at every moment: first beyond all old rows, then down again.
        shift = int(alive[-1]) + 1 if len(alive) else 0
        self.sql.execute(
            """UPDATE vectors SET row = ? + (SELECT new FROM renumbered WHERE old = vectors.row) WHERE tower_id = ?""",
            [shift, tower_id],
        )
        self.sql.execute("UPDATE vectors SET row = row - ? WHERE tower_id = ?", [shift, tower_id])
        self.sql.execute("DROP TABLE renumbered")
        self.sql.execute("DELETE FROM dead_rows WHERE tower_id = ?", [tower_id])
        self.sql.execute("UPDATE towers SET file = ? WHERE id = ?", [file, tower_id])
        self.set_row_count(tower_id, len(alive))

    def set_row_count(self, tower_id: int, rows: int) -> None:
        """Declares the first ``rows`` rows of the tower's vector file committed; their owners stand here already."""
        self.sql.execute("UPDATE towers SET row_count = ? WHERE id = ?", [rows, tower_id])
        seal_blocks(self.sql, tower_id, rows)

    def row_owners(self, tower_id: int, row_count: int, dead: RowArray) -> RowOwners:
        """Whose the first ``row_count`` rows of a tower are, of which those ``dead`` are nobody's."""
        return RowOwners.read(self.sql, tower_id, row_count, dead)

    def has_wrong_blocks(self, tower: Tower) -> bool:
        """Whether `row_owners` of a tower are not what the tables say."""
        return not are_right(self.sql, tower.id, tower.row_count, self.dead_rows(tower.id))

    def renew_blocks(self, tower: Tower) -> None:
        """Takes what `row_owners` reads from the tables anew."""
        self.sql.execute("DELETE FROM row_blocks WHERE tower_id = ?", [tower.id])
        seal_blocks(self.sql, tower.id, tower.row_count)


def marks(values: Sequence[Any]) -> str:
    """A place in a statement for each of some values."""
    return ", ".join("?" * len(values))
