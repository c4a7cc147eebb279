"""A copy of an index while it is in use, as of one moment.

The catalogue is copied first, by SQLite itself, in one transaction. What it calls committed never changes in the other
files, which only grow, so they may be copied after it, as far as it says. Only a compaction takes files away: then the
copy begins anew. The manifest comes last, so half a copy is no index.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from mmsearch.core.errors import IndexBusy, IndexDamaged, UsageError
from mmsearch.core.system import sync_directory
from mmsearch.store.local.catalogue import Catalogue, checks
from mmsearch.store.local.catalogue.checksums import is_file_wrong, wrong_rows
from mmsearch.store.local.catalogue.closing import Closed
from mmsearch.store.local.catalogue.reranker_cache import token_table
from mmsearch.store.local.directory import CATALOGUE, IndexDirectory, Manifest, keep_private
from mmsearch.store.local.files.rows import RowFile
from mmsearch.store.local.files.tokens import TokenFile
from mmsearch.store.local.files.vectors import VectorFile
from mmsearch.store.local.shortage import shortages_said

_TRIES = 5
_READ = 8 << 20


@dataclass(frozen=True)
class BackupReport:
    """What a copy holds. ``bytes``: of all its files."""

    path: str
    documents: int
    vectors: int
    bytes: int


def back_up(index: IndexDirectory, target: Path) -> BackupReport:
    """Copies an index to the new or empty folder ``target``, whoever reads or writes it meanwhile, and checks the copy.

    Folders that the index names relative to itself are found from the copy only where it lies beside them as the
    index does; it is meant to be put back.

    Raises:
        UsageError: ``target`` is a file or not empty.
        IndexDamaged: what was committed is not what lies on the disk, here or in the copy.
        IndexBusy: the index was compacted again and again meanwhile.
        ResourceShortage: the disk of the copy is full, say.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} is there already: give a new or empty folder for the copy")
    with shortages_said(target):
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in range(_TRIES):
            with contextlib.suppress(_FileGone):
                manifest = _copy(index, target)
                break
            for left in target.iterdir():
                left.unlink()
        else:
            raise IndexBusy(f"the index {index.path} changes its files again and again: wait until that has finished")
        _check(target, manifest)
        Closed.of(target / CATALOGUE).leave(target / CATALOGUE)
        manifest.write(target)
        keep_private(target)
        with contextlib.closing(IndexDirectory.open(target)) as copy:
            counts = copy.catalogue.counts()
            documents = sum(counts[name] for name in ("image", "video", "text"))
            return BackupReport(str(target), documents, copy.space().row_count, copy.size_bytes())


class _FileGone(Exception):  # noqa: N818
    """A compaction took a file away."""


def _copy(index: IndexDirectory, target: Path) -> Manifest:
    before = Manifest.read(index.path)
    with contextlib.closing(sqlite3.connect(target / CATALOGUE, isolation_level=None)) as copy:
        index.catalogue.sql.backup(copy)
    try:
        with contextlib.closing(Catalogue(target / CATALOGUE, read_only=False)) as catalogue:
            for file, rows in _row_files(index.path, catalogue):
                _copy_start(file.path, target / file.path.name, rows * file.row_bytes)
            manifest = Manifest.read(index.path)
            if manifest != before or manifest.encoder not in [space.spec for space in catalogue.spaces()]:
                raise _FileGone
            for name in _built_files(manifest):
                shutil.copyfile(index.path / name, target / name)
        for cache in index.path.glob("background-*.npz"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(cache, target / cache.name)
    except FileNotFoundError as error:
        raise _FileGone from error
    return manifest


def _built_files(manifest: Manifest) -> list[str]:
    built = manifest.vector_index
    return [] if built is None else [str(built["file"]), str(built["recipe_file"])]


def _row_files(folder: Path, catalogue: Catalogue) -> list[tuple[RowFile, int]]:
    """The files of rows that a catalogue names, in ``folder``, and how many rows of each count."""
    files: list[tuple[RowFile, int]] = []
    for space in catalogue.spaces():
        vectors = VectorFile(folder / space.file, space.spec.dim)
        files += [(vectors, space.row_count), (vectors.codes, vectors.codes.blocks_within(space.row_count))]
    table = token_table(catalogue)
    if table is not None:
        files.append((TokenFile(folder / table.file, table.shape), table.row_count))
    return [(file, rows) for file, rows in files if rows]


def _copy_start(source: Path, target: Path, size: int) -> None:
    """The first ``size`` bytes of a file, synced."""
    left = size
    with source.open("rb", buffering=0) as read, target.open("wb") as written:
        while left > 0 and (block := read.read(min(left, _READ))):
            written.write(block)
            left -= len(block)
        written.flush()
        os.fsync(written.fileno())
    if left > 0:
        raise IndexDamaged(
            f"{source} is {left:,} bytes shorter than the catalogue says: run `mmsearch verify` on the index"
        )


def _check(target: Path, manifest: Manifest) -> None:
    sync_directory(target)
    with contextlib.closing(Catalogue(target / CATALOGUE, read_only=True)) as catalogue:
        broken = checks.broken_database(catalogue)
        wrong = [
            file.path.name for file, rows in _row_files(target, catalogue) if len(wrong_rows(catalogue.sql, file, rows))
        ]
        wrong += [name for name in _built_files(manifest) if is_file_wrong(catalogue.sql, target / name)]
    if broken or wrong:
        raise IndexDamaged(
            f"the copy {target} does not hold what was committed ({', '.join([*broken[:1], *wrong])}): run "
            "`mmsearch verify` on the index"
        )
