"""Makes the parts of an index agree again, and keeps all that is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mmsearch.core.errors import IndexDamaged
from mmsearch.ingest import IngestOptions
from mmsearch.pipeline.plan import is_there, kept_scopes
from mmsearch.sources import located
from mmsearch.store.local.catalogue import checks
from mmsearch.store.local.catalogue.checksums import is_file_wrong, renew_rows, seal_vectors, wrong_codes
from mmsearch.store.local.catalogue.reranker_cache import live_places, token_table
from mmsearch.store.local.catalogue.sounds import bad_sounds, forget_sounds
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.files.tokens import TokenFile
from mmsearch.store.local.store import is_calibration_damaged
from mmsearch.verify.differences import Difference
from mmsearch.verify.rereading import lasting_contents
from mmsearch.verify.verifying import bad_places, bad_rows, built_files

AddAgain = Callable[[Path, IngestOptions], object]


def mend(index: IndexDirectory, differences: Sequence[Difference], add: AddAgain) -> None:
    """Mends what `verify` has found: first the index in itself, then with the disk.

    Vectors that are gone or useless take their documents with them, and ``add`` (an `ingest` of one place with its
    options) reads those files again; no other document is touched. What cannot be read again (it was imported, or its
    disk is away) is kept as it is. Folders that are not there are left alone: they may come back.

    Raises:
        IndexDamaged: SQLite cannot trust its own file.
    """
    with index.writing(cut=False) as writable:
        checks.refuse_broken(writable.catalogue)
        writable.catalogue.closed = None  # whatever was wrong with the file: it is written anew
        _mend_files(writable)
        _mend_index(writable, [found.where for found in differences if found.kind == "changed bytes"])
        places = [
            (scope.folder / scope.below, IngestOptions.from_kept(options)) for scope, options in kept_scopes(writable)
        ]
    for place, options in places:
        if is_there(place):
            add(place, options)


def _mend_files(index: IndexDirectory) -> None:
    """What is made from the rest: the manifest, the vector index, the calibration."""
    catalogue = index.catalogue
    if index.manifest.is_damaged:
        spaces = catalogue.spaces()
        known = index.space_of(index.manifest.encoder) or (spaces[0] if len(spaces) == 1 else None)
        if known is None:
            raise IndexDamaged(
                f"the manifest of {index.path} is damaged, and the catalogue has vectors of {len(spaces)} encoders: "
                "restore manifest.json from a copy"
            )
        index.with_manifest(model=known.spec.name, encoder=known.spec, recipe="exact", vector_index=None)
    elif any(is_file_wrong(catalogue.sql, index.path / name) for name in built_files(index)):
        index.with_manifest(recipe="exact", vector_index=None)
    for space in catalogue.spaces():
        if is_calibration_damaged(index, space):
            index.background_file(space).unlink(missing_ok=True)


def _mend_index(index: IndexDirectory, changed: Sequence[str]) -> None:
    catalogue = index.catalogue
    if any(index.vector_file(space).rows_on_disk() < space.row_count for space in catalogue.spaces()):
        index.with_manifest(vector_index=None, recipe="exact")  # what was built knows rows that others will take
    with catalogue.transaction():
        _forget_times(index, changed)
        for space in catalogue.spaces():
            rows = min(space.row_count, index.vector_file(space).rows_on_disk())
            live = checks.live_rows(catalogue, space.id)
            bad = bad_rows(index, space, rows, live)
            owners = checks.contents_of_rows(catalogue, space.id, bad)
            lasting = lasting_contents(index, owners.values())
            useless = np.array([row for row in bad.tolist() if owners.get(row) not in lasting], dtype=np.int64)
            checks.mend_rows(catalogue, space.id, rows, useless)
        broken = [content for content, _ in checks.incomplete_contents(catalogue, index.space().id)]
        checks.mend_contents(catalogue, index.space().id, keep=lasting_contents(index, broken))
        forget_sounds(catalogue, [content for content, _ in bad_sounds(catalogue)])
        catalogue.drop_empty_roots(keep=[scope.root_id for scope in catalogue.kept_scopes()])
    for space in catalogue.spaces():
        vectors = index.vector_file(space)
        vectors.cut(space.row_count)
        wrong = wrong_codes(catalogue.sql, vectors, space.row_count)
        vectors.codes.mend(vectors.map(space.row_count), wrong)
        with catalogue.transaction():
            renew_rows(catalogue.sql, vectors.codes, wrong)
            seal_vectors(catalogue.sql, vectors, space.row_count)
    table = token_table(catalogue)
    if table is not None:
        file = TokenFile(index.path / table.file, table.shape)
        rows = min(file.rows_on_disk(), table.row_count)
        index.settle_tokens(bad_places(index, file, rows, live_places(catalogue, table)).tolist())


def _forget_times(index: IndexDirectory, changed: Sequence[str]) -> None:
    """Documents without a time of change are read again."""
    for root in index.catalogue.roots():
        folder = index.root_path(root)
        places = [path for path in map(located, changed) if folder in path.parents]
        inside = [path.relative_to(folder).as_posix() for path in places]
        index.catalogue.forget_times(root.id, inside)
