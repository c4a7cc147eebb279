"""Whose each row of a vector file is: two arrays, so that a search need not ask the database about single rows.

A row belongs to one content from its commit until it dies, so what stands about a run of rows never changes: every
`BLOCK` of them is written down as one record (table ``row_blocks``) in the transaction that completes it, and reading a
million rows takes 10 ms where the tables themselves take a second. Triggers drop the records where rows are
renumbered, given up or mended; whatever no record covers is read from the tables.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mmsearch.core.types import Modality

RowArray = npt.NDArray[np.int64]
BLOCK = 1024
"""Rows of one record: 9 KB. At most so many are read one by one."""
NOBODY = 3
"""Stands in for the modality of a dead row; its content is 0, which is none."""


class RowOwners:
    """``contents`` int64 (rows,): the id of the content of each row; ``modalities`` uint8 (rows,): its modality, by the
    ``numbers`` that the catalogue has given them. The rows ``dead``, int64 (d,), belong to nobody, whatever stands
    there.
    """

    def __init__(
        self, contents: RowArray, modalities: npt.NDArray[np.uint8], dead: RowArray, numbers: Mapping[Modality, int]
    ) -> None:
        self.contents, self.modalities, self.numbers = contents, modalities, numbers
        dead = dead[dead < len(contents)]
        self.contents[dead], self.modalities[dead] = 0, NOBODY

    @classmethod
    def read(
        cls, sql: sqlite3.Connection, space_id: int, row_count: int, dead: RowArray, *, from_blocks: bool = True
    ) -> RowOwners:
        """Of the first ``row_count`` rows of a space; without ``from_blocks`` from the other tables alone."""
        contents, modalities = np.zeros(row_count, np.int64), np.full(row_count, NOBODY, np.uint8)
        numbers, end = _numbers(sql), 0
        for first, ids, kinds in _blocks(sql, space_id) if from_blocks else ():
            stop = min(end + len(kinds), row_count)
            if first != end or stop == end or len(ids) != 8 * len(kinds):
                break
            contents[end:stop] = np.frombuffer(ids, "<i8")[: stop - end]
            modalities[end:stop] = np.frombuffer(kinds, np.uint8)[: stop - end]
            end = stop
        for row, content, modality in _from_tables(sql, space_id, end, row_count):
            contents[row], modalities[row] = content, numbers[modality]
        return cls(contents, modalities, dead, numbers)

    def of_modalities(self, wanted: Iterable[Modality]) -> RowArray:
        """The rows of some modalities, ascending."""
        return np.flatnonzero(self._is_wanted(wanted)[self.modalities])

    def are_of_modalities(self, rows: RowArray, wanted: Iterable[Modality]) -> npt.NDArray[np.bool_]:
        """Which of some rows are of some modalities."""
        return self._is_wanted(wanted)[self.modalities[rows]]

    def of_contents(self, contents: RowArray) -> tuple[npt.NDArray[np.intp], RowArray]:
        """The rows of some contents, int64 (c,), and beside each the place in ``contents`` of the one it belongs to."""
        known, firsts, order = self._by_content
        at = np.minimum(np.searchsorted(known, contents), max(0, len(known) - 1))
        counts = np.where(known[at] == contents, firsts[at + 1] - firsts[at], 0) if len(known) else np.zeros_like(at)
        places = np.repeat(np.arange(len(contents)), counts)
        within = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
        return places, order[firsts[at][places] + within] if len(known) else order

    def _is_wanted(self, wanted: Iterable[Modality]) -> npt.NDArray[np.bool_]:
        """By the number of a modality; one that the index never had has none."""
        is_wanted = np.zeros(256, dtype=bool)
        is_wanted[[self.numbers[name] for name in wanted if name in self.numbers]] = True
        return is_wanted

    @cached_property
    def _by_content(self) -> tuple[RowArray, RowArray, RowArray]:
        """The contents that have rows, ascending; all rows by content; and from where to where each one's lie there."""
        order = np.argsort(self.contents, kind="stable").astype(np.int64, copy=False)
        ordered = self.contents[order]
        firsts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(order)])
        return ordered[firsts], np.append(firsts, len(order)), order


def seal_blocks(sql: sqlite3.Connection, space_id: int, row_count: int) -> None:
    """Writes down the blocks that are complete among the first ``row_count`` rows, inside the caller's transaction."""
    last = sql.execute(
        "SELECT first_row, length(modalities) FROM row_blocks WHERE space_id = ? ORDER BY first_row DESC LIMIT 1",
        [space_id],
    ).fetchone()
    start, numbers = 0 if last is None else last[0] + last[1], _numbers(sql)
    while start + BLOCK <= row_count:
        owned = _from_tables(sql, space_id, start, start + BLOCK).fetchall()
        dead = "SELECT count(*) FROM dead_rows WHERE space_id = ? AND row >= ? AND row < ?"
        if len(owned) + sql.execute(dead, [space_id, start, start + BLOCK]).fetchone()[0] != BLOCK:
            return  # some rows have no owner yet: the next commit looks again
        contents, modalities = np.zeros(BLOCK, "<i8"), np.full(BLOCK, NOBODY, np.uint8)
        for row, content, modality in owned:
            contents[row - start], modalities[row - start] = content, numbers[modality]
        sql.execute(
            "INSERT INTO row_blocks (space_id, first_row, contents, modalities) VALUES (?, ?, ?, ?)",
            [space_id, start, contents.tobytes(), modalities.tobytes()],
        )
        start += BLOCK


def are_right(sql: sqlite3.Connection, space_id: int, row_count: int, dead: RowArray) -> bool:
    """Whether the blocks of a space say what the other tables say of its first ``row_count`` rows."""
    known = {NOBODY, *_numbers(sql).values()}
    for first, ids, kinds in _blocks(sql, space_id):
        if len(ids) != 8 * len(kinds) or first + len(kinds) > row_count or not known.issuperset(kinds):
            return False
    told = RowOwners.read(sql, space_id, row_count, dead)
    true = RowOwners.read(sql, space_id, row_count, dead, from_blocks=False)
    return np.array_equal(told.contents, true.contents) and np.array_equal(told.modalities, true.modalities)


def _numbers(sql: sqlite3.Connection) -> dict[Modality, int]:
    """The number of each modality that the index has had; none is `NOBODY`."""
    return dict(sql.execute("SELECT name, number FROM modalities").fetchall())


def _blocks(sql: sqlite3.Connection, space_id: int) -> sqlite3.Cursor:
    return sql.execute(
        "SELECT first_row, contents, modalities FROM row_blocks WHERE space_id = ? ORDER BY first_row", [space_id]
    )


def _from_tables(sql: sqlite3.Connection, space_id: int, start: int, stop: int) -> sqlite3.Cursor:
    return sql.execute(
        """SELECT v.row, s.content_id, v.modality FROM vectors v CROSS JOIN segments s ON s.id = v.segment_id
           WHERE v.space_id = ? AND v.row >= ? AND v.row < ?""",
        [space_id, start, stop],
    )
