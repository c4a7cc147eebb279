"""Checksums of what was committed to the files beside the catalogue, written in the transaction that commits it.

Each row of a file (a vector, a block of codes, the tokens of an image) has 8 bytes of BLAKE2b; a file that is written
in one go counts as one row. So a flipped bit names the row it is in, rows that were exchanged differ both, a row that
moves takes its checksum along, and appending reads nothing that was there before: what is damaged stays noticed,
whatever is written after it. A million vectors have 8 MB of them, `BLOCK` rows a record.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmsearch.store.local.files.rows import RowFile
from mmsearch.store.local.files.vectors import VectorFile

BLOCK = 1024
"""Rows of one record."""
SIZE = 8
"""Bytes of the checksum of one row."""
_READ = 8 << 20
"""Bytes read in one go."""
RowArray = npt.NDArray[np.int64]
Sums = npt.NDArray[np.uint64]


def seal_vectors(sql: sqlite3.Connection, file: VectorFile, rows: int) -> None:
    """Writes down the checksums of the first ``rows`` rows of a vector file and of its codes, as far as they lack.

    Codes that an older mmsearch wrote are believed where they agree with the vectors.
    """
    codes = file.codes
    blocks = codes.blocks_within(rows)
    is_old = blocks > 0 and not count(sql, file.path.name)
    seal_rows(sql, file, rows)
    if not is_old or not codes.wrong_blocks(file.map(min(rows, file.rows_on_disk()))):
        seal_rows(sql, codes, blocks)


def seal_rows(sql: sqlite3.Connection, file: RowFile, rows: int) -> None:
    """Writes down the checksums of the first ``rows`` rows of a file, as far as they lack, and drops those of more."""
    name, rows = file.path.name, min(rows, file.rows_on_disk())
    have = count(sql, name)
    if have > rows:
        cut(sql, name, rows)
    elif have < rows:
        _append(sql, name, have, sums_of(file, have, rows))


def renew_rows(sql: sqlite3.Connection, file: RowFile, rows: Iterable[int]) -> None:
    """Takes the checksums of some rows anew: they have just been mended."""
    sums = recorded(sql, file.path.name)
    changed = [row for row in rows if row < len(sums)]
    for row in changed:
        sums[row] = sums_of(file, row, row + 1)[0]
    if changed:
        replace(sql, file.path.name, sums)


def wrong_rows(sql: sqlite3.Connection, file: RowFile, rows: int) -> RowArray:
    """Which of the first ``rows`` rows of a file are not what was committed, as far as there are checksums."""
    sums = recorded(sql, file.path.name)
    rows = min(rows, len(sums), file.rows_on_disk())
    return np.flatnonzero(sums_of(file, 0, rows) != sums[:rows])


def renumber(sql: sqlite3.Connection, old: str, alive: RowArray, new: str) -> None:
    """What was row ``alive[i]`` of one file is row i of another one, and the old file goes."""
    sums = recorded(sql, old)
    cut(sql, old, 0)
    if not len(alive) or alive[-1] < len(sums):  # else some have none: they are written down at the next commit
        replace(sql, new, sums[alive])


def wrong_codes(sql: sqlite3.Connection, file: VectorFile, rows: int) -> list[int]:
    """Which blocks of codes of the first ``rows`` rows are not those that were written, or, without a checksum, not
    those of the vectors.
    """
    blocks = file.codes.blocks_within(rows)
    sealed = count(sql, file.codes.path.name)
    wrong: list[int] = wrong_rows(sql, file.codes, min(blocks, sealed)).tolist()
    return wrong + (file.codes.wrong_blocks(file.map(rows), sealed) if sealed < blocks else [])


def digest_of_rows(sql: sqlite3.Connection, file: str, rows: int) -> str | None:
    """Names the first ``rows`` rows of a file by their checksums; ``None`` where some have none."""
    sums = recorded(sql, file)
    return None if len(sums) < rows else blake2b(sums[:rows].tobytes(), digest_size=8).hexdigest()


def seal_file(sql: sqlite3.Connection, path: Path) -> None:
    """Writes down the checksum of a whole file."""
    replace(sql, path.name, _sum_of_file(path))


def is_file_wrong(sql: sqlite3.Connection, path: Path) -> bool:
    """Whether a whole file is not what was written; ``False`` where there is no checksum of it."""
    sums = recorded(sql, path.name)
    try:
        return len(sums) == 1 and not np.array_equal(sums, _sum_of_file(path))
    except OSError:
        return True


def count(sql: sqlite3.Connection, file: str) -> int:
    """Of how many rows of a file there are checksums."""
    row = sql.execute(
        "SELECT first_row, length(sums) FROM checksums WHERE file = ? ORDER BY first_row DESC LIMIT 1", [file]
    ).fetchone()
    return 0 if row is None else int(row[0]) + int(row[1]) // SIZE


def recorded(sql: sqlite3.Connection, file: str) -> Sums:
    """The checksums of a file, uint64 (rows,)."""
    parts = sql.execute("SELECT sums FROM checksums WHERE file = ? ORDER BY first_row", [file])
    return _array(b"".join(part for (part,) in parts))


def sums_of(file: RowFile, start: int, stop: int) -> Sums:
    """What the checksums of rows ``start`` to ``stop`` of a file must be, as it is now: uint64 (rows,)."""
    sums = b"".join(blake2b(row, digest_size=SIZE).digest() for rows in _chunks(file, start, stop) for row in rows)
    return _array(sums)


def cut(sql: sqlite3.Connection, file: str, rows: int) -> None:
    """Forgets the checksums of all but the first ``rows`` rows of a file."""
    keep = recorded(sql, file)[:rows] if rows else None
    sql.execute("DELETE FROM checksums WHERE file = ? AND first_row >= ?", [file, rows // BLOCK * BLOCK])
    if keep is not None:
        _append(sql, file, rows // BLOCK * BLOCK, keep[rows // BLOCK * BLOCK :])


def replace(sql: sqlite3.Connection, file: str, sums: Sums) -> None:
    """These are the checksums of a file."""
    sql.execute("DELETE FROM checksums WHERE file = ?", [file])
    _append(sql, file, 0, sums)


def _append(sql: sqlite3.Connection, file: str, have: int, sums: Sums) -> None:
    first = have // BLOCK * BLOCK
    if first < have:  # the last record is not full
        part = sql.execute("SELECT sums FROM checksums WHERE file = ? AND first_row = ?", [file, first]).fetchone()[0]
        sums = np.concatenate([np.frombuffer(part, dtype="<u8"), sums])
    sql.executemany(
        "INSERT OR REPLACE INTO checksums VALUES (?, ?, ?)",
        ((file, first + start, sums[start : start + BLOCK].tobytes()) for start in range(0, len(sums), BLOCK)),
    )


def _chunks(file: RowFile, start: int, stop: int) -> Iterator[list[memoryview]]:
    size = file.row_bytes
    if stop <= start:
        return
    with file.path.open("rb", buffering=0) as opened:
        opened.seek(start * size)
        each = max(1, _READ // size)
        for first in range(start, stop, each):
            wanted = (min(stop, first + each) - first) * size
            data = memoryview(_read(opened, wanted))
            yield [data[at : at + size] for at in range(0, len(data) - size + 1, size)]


def _read(opened: object, wanted: int) -> bytes:
    parts = []
    while wanted > 0 and (part := opened.read(wanted)):  # type: ignore[attr-defined]
        parts.append(part)
        wanted -= len(part)
    return b"".join(parts)


def _array(sums: bytes) -> Sums:
    array: Sums = np.frombuffer(sums, dtype="<u8").copy()
    return array


def _sum_of_file(path: Path) -> Sums:
    digest = blake2b(digest_size=SIZE)
    with path.open("rb", buffering=0) as file:
        while block := file.read(_READ):
            digest.update(block)
    return _array(digest.digest())
