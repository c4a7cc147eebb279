"""Compares the catalogue with itself, with the vector files and with the disk. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import MediaError
from mmsearch.ingest import IngestOptions
from mmsearch.media.base import DecodeOptions
from mmsearch.pipeline.plan import Scope, archive_of, is_there, kept_scopes, make_plan, settle_skipped
from mmsearch.sources import FileEntry, content_hash
from mmsearch.store.local.catalogue import Root, Space, checks
from mmsearch.store.local.catalogue.checksums import is_file_wrong, wrong_codes, wrong_rows
from mmsearch.store.local.catalogue.closing import Closed, log_has_content, set_aside_of
from mmsearch.store.local.catalogue.reranker_cache import live_places, token_table
from mmsearch.store.local.catalogue.sounds import bad_sounds
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.files.tokens import TokenFile
from mmsearch.store.local.store import is_calibration_damaged
from mmsearch.verify.differences import Difference, Verdict
from mmsearch.verify.rereading import lasting_contents

CANNOT_BE_READ = (
    "nothing on this machine could be read again for it (it was imported, or its disk is away): kept as it is; import "
    "it again, or bring the file back"
)
LENGTH_TOLERANCE = 0.01
"""How far from 1 a vector's length may be; half precision alone costs less than a tenth of that."""
_CHUNK = 1 << 16
"""Vectors looked at in one go."""

Seen = Callable[[int], None]


def verify(index: IndexDirectory, *, read_bytes: bool = False, seen: Seen = lambda _: None) -> Verdict:
    """Compares everything; the index must be open for writing, so that nobody changes it meanwhile.

    With ``read_bytes``, every file is read and hashed again, which notices bytes that changed while size and time
    stayed. ``seen`` is called with the number of files met so far.
    """
    catalogue, space = index.catalogue, index.space()
    broken = checks.broken_database(catalogue)
    if broken:  # whatever else the database says cannot be trusted
        advice = "restore the index from a copy, or remove it and index again"
        found = [Difference("damaged database", catalogue.path.name, f"{what}: {advice}") for what in broken]
        return Verdict(0, 0, 0, tuple(found))
    differences = [*_integrity(index, space), *_catalogue(index, space), *_stray_files(index)]
    for each in catalogue.spaces():
        differences += _vectors(index, each)
    differences += [*_tokens(index), *_sounds(index)]
    files, on_disk = _disk(index, seen)
    differences += on_disk
    if read_bytes:
        differences += _bytes(index, {difference.where for difference in on_disk})
    documents = checks.count(catalogue, "SELECT id FROM documents", space.id)
    vectors = sum(each.row_count for each in catalogue.spaces())
    return Verdict(documents, vectors, files, tuple(differences))


def _integrity(index: IndexDirectory, space: Space) -> Iterator[Difference]:
    """What is not byte for byte what was written: the catalogue's file, the manifest, the vector index, the caches."""
    catalogue = index.catalogue
    is_complete = catalogue.closed is not None and not log_has_content(catalogue.path)
    if is_complete and Closed.of(catalogue.path) != catalogue.closed:
        detail = (
            "bytes of it are not those that were written, and nothing tells which: restore the index from a copy if "
            "there is one; mending compares the tables with each other and with the disk, and believes the rest"
        )
        yield Difference("changed catalogue", catalogue.path.name, detail)
    if set_aside_of(catalogue.path).exists():
        detail = (
            "a write-ahead log that did not belong to this catalogue lay beside it, from a backup, say; it was not "
            "believed: delete it"
        )
        yield Difference("foreign log", set_aside_of(catalogue.path).name, detail)
    if index.manifest.is_damaged:
        detail = "it is not what was written: mending takes the encoder from the catalogue and searches exactly"
        yield Difference("damaged manifest", "manifest.json", detail)
    for name in built_files(index):
        if is_file_wrong(catalogue.sql, index.path / name):
            detail = (
                "it is not what was built: mending drops it and searches exactly, `mmsearch optimize` builds it anew"
            )
            yield Difference("damaged vector index", name, detail)
    for each in catalogue.spaces():
        if is_calibration_damaged(index, each):
            detail = "it cannot be read: mending drops it, it is made anew"
            yield Difference("damaged calibration", index.background_file(each).name, detail)


def built_files(index: IndexDirectory) -> list[str]:
    """The files of the vector index in use."""
    built = index.manifest.vector_index
    return [] if built is None else [str(built["file"]), str(built["recipe_file"])]


def _catalogue(index: IndexDirectory, space: Space) -> Iterator[Difference]:
    catalogue = index.catalogue
    broken = checks.incomplete_contents(catalogue, space.id)
    lasting = lasting_contents(index, (content_id for content_id, _ in broken))
    for content_id, path in broken:
        detail = "a segment of it, or a segment's vector, is missing: "
        kind = "lost content" if content_id in lasting else "incomplete content"
        detail += CANNOT_BE_READ if content_id in lasting else "it must be read again"
        yield Difference(kind, path or f"content {content_id}", detail)
    unused = checks.count(catalogue, checks.UNUSED, space.id)
    if unused:
        yield Difference("unused content", catalogue.path.name, f"{unused} contents belong to no document")
    for table, question in checks.OTHER_MODALITY.items():
        wrong = checks.count(catalogue, question, space.id)
        if wrong:
            yield Difference("wrong modality", catalogue.path.name, f"{wrong} {table} disagree with their content")
    for path in checks.empty_roots(catalogue):
        yield Difference("empty root", path, "nothing in the index belongs to it")


def _stray_files(index: IndexDirectory) -> Iterator[Difference]:
    table = token_table(index.catalogue)
    vectors = [index.vector_file(space) for space in index.catalogue.spaces()]
    ours = {path.name for file in vectors for path in (file.path, file.codes.path)} | ({table.file} if table else set())
    for file in sorted(
        path for kind in ("vectors-*.f16", "vectors-*.u8", "tokens-*.i8") for path in index.path.glob(kind)
    ):
        if file.name not in ours:
            detail = "the catalogue knows no such file of vectors or tokens: delete it if you did not put it there"
            yield Difference("stray file", file.name, detail)


def _vectors(index: IndexDirectory, space: Space) -> Iterator[Difference]:
    """The vector file's length, who owns its rows, and whether they are vectors of length 1."""
    file = index.vector_file(space)
    on_disk = file.rows_on_disk()
    if on_disk < space.row_count:
        detail = f"it holds {on_disk} vectors, the catalogue has committed {space.row_count}"
        yield Difference("vectors missing", space.file, detail)
    surplus = (file.path.stat().st_size if file.path.exists() else 0) - space.row_count * space.spec.dim * 2
    if surplus > 0:
        yield Difference("uncommitted bytes", space.file, f"{surplus} bytes were never committed (after a crash)")
    live, dead = checks.live_rows(index.catalogue, space.id), index.catalogue.rows_given_up(space.id)
    yield from _owners(space, live, dead)
    if index.catalogue.has_wrong_blocks(space):
        detail = "what is written down of whose the vectors are disagrees with the other tables"
        yield Difference("wrong row blocks", index.catalogue.path.name, detail)
    rows = min(on_disk, space.row_count)
    if wrong := wrong_codes(index.catalogue.sql, file, rows):
        detail = f"{len(wrong)} of {file.codes.blocks_within(rows)} blocks are not those of the vectors"
        yield Difference("wrong codes", file.codes.path.name, detail)
    bad = bad_rows(index, space, rows, live)
    owners = checks.owners_of_rows(index.catalogue, space.id, bad)
    contents = checks.contents_of_rows(index.catalogue, space.id, bad)
    lasting = lasting_contents(index, contents.values())
    for row in bad.tolist():
        is_lost = contents.get(row) in lasting
        detail = f"row {row} is not the vector that was committed" + (f": {CANNOT_BE_READ}" if is_lost else "")
        yield Difference("lost vector" if is_lost else "bad vector", owners.get(row, space.file), detail)


def _sounds(index: IndexDirectory) -> Iterator[Difference]:
    """Whether the windows of sound are those that were committed."""
    for _, path in bad_sounds(index.catalogue):
        detail = "a window of its sound is not what was committed: `mmsearch index --sounds` listens to it again"
        yield Difference("bad sounds", path, detail)


def _tokens(index: IndexDirectory) -> Iterator[Difference]:
    """The token file's length, and whether its rows can be tokens."""
    table = token_table(index.catalogue)
    if table is None:
        return
    file = TokenFile(index.path / table.file, table.shape)
    rows = min(file.rows_on_disk(), table.row_count)
    if rows < table.row_count:
        yield Difference("tokens missing", table.file, f"it holds {rows} of {table.row_count} images' tokens")
    surplus = file.bytes_on_disk() - table.row_count * file.bytes_per_image
    if surplus > 0:
        yield Difference("uncommitted tokens", table.file, f"{surplus} bytes were never committed (after a crash)")
    for place in bad_places(index, file, rows, live_places(index.catalogue, table)).tolist():
        yield Difference("bad tokens", table.file, f"row {place} does not hold the tokens that were committed")


def bad_places(index: IndexDirectory, file: TokenFile, rows: int, live: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which of the places ``live`` below ``rows`` do not hold the tokens that were committed, ascending."""
    return np.intersect1d(np.union1d(file.bad_rows(rows), wrong_rows(index.catalogue.sql, file, rows)), live)


def _owners(space: Space, live: npt.NDArray[np.int64], dead: npt.NDArray[np.int64]) -> Iterator[Difference]:
    everything = np.union1d(live, dead)
    outside = everything[everything >= space.row_count]
    for row in outside.tolist():
        yield Difference("row outside", space.file, f"row {row} is not among the {space.row_count} committed ones")
    for row in np.intersect1d(live, dead).tolist():
        yield Difference("row owned and dead", space.file, f"row {row} is owned by a segment and counted as unused")
    lost = np.setdiff1d(np.arange(space.row_count), everything)
    for row in lost.tolist():
        yield Difference(
            "row without owner", space.file, f"row {row} belongs to no segment and is not counted as unused"
        )


def bad_rows(index: IndexDirectory, space: Space, rows: int, live: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which of the rows ``live`` among the first ``rows`` of a space's vector file are not what was committed.

    Ascending. Their checksums tell; where an older mmsearch wrote none, vectors that are not finite or not of length 1.
    """
    file = index.vector_file(space)
    live = live[(live >= 0) & (live < rows)]
    changed = np.intersect1d(wrong_rows(index.catalogue.sql, file, rows), live)
    return np.union1d(rows_not_of_length_1(file.map(rows), live), changed)


def rows_not_of_length_1(matrix: npt.NDArray[np.float16], live: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which of the rows ``live`` of a (rows, dim) matrix are not finite or not of length 1, ascending."""
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(matrix), _CHUNK):
        vectors = np.asarray(matrix[start : start + _CHUNK], dtype=np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        wrong = ~(np.abs(lengths - 1) <= LENGTH_TOLERANCE)  # so that NaN counts as wrong
        found.append(start + np.flatnonzero(wrong))
    return np.intersect1d(np.concatenate(found), live)


def _disk(index: IndexDirectory, seen: Seen) -> tuple[int, list[Difference]]:
    """What the next `mmsearch index` of all that is kept would do, without doing it."""
    differences: list[Difference] = []
    files = 0
    for scope, options in kept_scopes(index):
        if not is_there(scope.folder / scope.below):
            differences.append(_missing(index, scope))
            continue
        before = files
        found, more = _scope(index, scope, IngestOptions.from_kept(options), lambda number: seen(before + number))  # noqa: B023
        files += found
        differences += more
    return files, differences


def _missing(index: IndexDirectory, scope: Scope) -> Difference:
    place = scope.folder / scope.below
    documents = sum(1 for _ in index.catalogue.documents_below(scope.root.id, scope.below))
    detail = (
        f"{documents} documents lie there: mount the disk again, index the new place if it was moved, or drop them "
        f"with `mmsearch remove {place}`"
    )
    return Difference("missing folder", str(place), detail)


def _scope(index: IndexDirectory, scope: Scope, options: IngestOptions, seen: Seen) -> tuple[int, list[Difference]]:
    decode = DecodeOptions(max_megapixels=options.max_megapixels, frame_interval_s=options.frame_interval_s)
    plan = make_plan(index, [scope], options.rules, decode, seen, with_removed=False)
    settle_skipped(index, [scope], plan, options.limits)
    differences = []
    for work in plan.work:
        known = getattr(work, "previous", None) is not None
        detail = "it changed, or another version of mmsearch would read it differently" if known else "not indexed yet"
        differences.append(Difference("changed file" if known else "new file", str(work.path), detail))
    for _, _, path in plan.gone:
        differences.append(Difference("missing file", str(scope.folder / path), "indexed, and no longer there"))
    for _, path in (*plan.forgotten, *plan.forgotten_archives):
        differences.append(Difference("missing file", str(scope.folder / path), "remembered, and no longer there"))
    return plan.unchanged + len(plan.skipped) + len(plan.work), differences


def _bytes(index: IndexDirectory, different: set[str]) -> Iterator[Difference]:
    """Files whose bytes are not those that were indexed, though size and time say so. Samples of archives are left
    to their archive's size and time.
    """
    roots: dict[int, Root] = {root.id: root for root in index.catalogue.roots()}
    for root_id, path, size, mtime_ns, expected in checks.hashes(index.catalogue):
        root = roots[root_id]
        place = index.root_path(root) / path
        if root.is_dataset or str(place) in different or not place.is_file():
            continue
        if (archive := archive_of(path)) and (index.root_path(root) / archive).is_file():
            continue
        try:
            found = content_hash(place, FileEntry(path, size, mtime_ns, 0))
        except MediaError as error:
            yield Difference("unreadable file", str(place), f"{error}: make it readable and run again")
            continue
        if found != expected:
            yield Difference("changed bytes", str(place), "its bytes are not those that were indexed")
