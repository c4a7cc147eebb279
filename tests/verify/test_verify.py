"""`verify` names every difference, and mending loses nothing that is right."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsearch.api import Index
from mmsearch.core.errors import IndexBusy, IndexDamaged
from mmsearch.ingest import IngestOptions
from mmsearch.sources import WalkRules
from mmsearch.store.local.catalogue.database import register_words
from mmsearch.store.local.files import codes as code_file
from mmsearch.verify import Verdict
from mmsearch.verify.differences import KINDS
from mmsearch.verify.verifying import rows_not_of_length_1
from tests.support.colours import COLOURS, ColourEncoder, save_colour


def kinds(verdict: Verdict) -> dict[str, int]:
    return dict(Counter(difference.kind for difference in verdict.differences))


def sql(index: Index, *statements: str) -> None:
    """Damages the catalogue behind everybody's back."""
    (index.path / "catalogue.closed").unlink(missing_ok=True)  # as any writer does: else its log would not be believed
    with sqlite3.connect(index.path / "catalogue.sqlite") as connection:
        register_words(connection)
        for statement in statements:
            connection.execute(statement)
    connection.close()


def vectors_path(index: Index) -> Path:
    return index.path / index._directory.space().file


def overwrite_row(index: Index, row: int, value: float) -> None:
    data = np.fromfile(vectors_path(index), np.float16).reshape(-1, 4)
    data[row] = value
    data.tofile(vectors_path(index))


def colours_found(index: Index) -> set[str]:
    return {Path(index.search(colour, k=1, words=False)[0].path).stem for colour in COLOURS}


def test_a_fresh_index_agrees_with_its_disk(index: Index, photos: Path) -> None:
    (photos / "bad.png").write_bytes(b"no picture")
    (photos / "other.pdf").write_bytes(b"%PDF")
    index.add(photos)
    verdict = index.verify(read_bytes=True)
    assert verdict == Verdict(documents=8, vectors=8, files=10)
    assert verdict.clean


def test_the_disk_moved_on(index: Index, photos: Path, encoder: ColourEncoder) -> None:
    index.add(photos)
    save_colour(photos / "new.png", "red", seed=50)
    save_colour(photos / "sub" / "red.png", "blue", seed=51)
    (photos / "green.png").unlink()
    found = index.verify()
    assert kinds(found) == {"new file": 1, "changed file": 1, "missing file": 1}
    assert {Path(one.where).name for one in found.differences} == {"new.png", "red.png", "green.png"}
    assert encoder.encoded_images == 8, "verify only looks"
    assert index.verify(mend=True).clean
    assert encoder.encoded_images == 10


def test_bytes_that_changed_behind_size_and_time(index: Index, photos: Path) -> None:
    index.add(photos)
    photo = photos / "green.png"
    status, data = photo.stat(), bytearray(photo.read_bytes())
    data[-20] ^= 1
    photo.write_bytes(data)
    os.utime(photo, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert index.verify().clean
    assert kinds(index.verify(read_bytes=True)) == {"changed bytes": 1}
    after = index.verify(read_bytes=True, mend=True)
    assert after.clean and after.documents in (7, 8)


def test_the_options_of_the_last_run_hold(index: Index, photos: Path) -> None:
    index.add(photos, options=IngestOptions(WalkRules(exclude=("green.*",)), frame_interval_s=5, max_megapixels=1))
    assert index.verify().clean
    assert index.verify(mend=True).documents == 7


def test_only_what_was_asked_for_is_expected(index: Index, photos: Path) -> None:
    index.add(photos / "green.png")
    assert index.verify() == Verdict(1, 1, 1)
    index.add(photos / "sub")
    assert index.verify() == Verdict(5, 5, 5)
    index.add(photos)
    assert index.verify() == Verdict(8, 8, 8)
    index.remove(photos / "sub")
    assert index.verify(mend=True) == Verdict(4, 8, 4), "what was taken out stays out"
    index.add(photos)
    assert index.verify().documents == 8, "until somebody wants it back"


def test_a_folder_that_is_not_there_is_left_alone(index: Index, photos: Path) -> None:
    index.add(photos)
    photos.rename(photos.with_name("unmounted"))
    found = index.verify(mend=True)
    assert kinds(found) == {"missing folder": 1}
    assert "8 documents" in found.differences[0].detail
    photos.with_name("unmounted").rename(photos)
    assert index.verify().clean
    assert colours_found(index) == set(COLOURS)


DAMAGES: dict[str, tuple[dict[str, int], Callable[[Index], None]]] = {
    "cut vector file": ({"vectors missing": 1}, lambda index: os.truncate(vectors_path(index), 5 * 8 + 3)),
    "vector file gone": ({"vectors missing": 1}, lambda index: vectors_path(index).unlink()),
    "left-over bytes": ({"uncommitted bytes": 1}, lambda index: os.truncate(vectors_path(index), 9 * 8)),
    "not finite": ({"bad vector": 1}, lambda index: overwrite_row(index, 3, float("nan"))),
    "not of length 1": ({"bad vector": 1}, lambda index: overwrite_row(index, 7, 1.0)),
    "zeros": ({"bad vector": 1}, lambda index: overwrite_row(index, 0, 0.0)),
    "vector row deleted": (
        {"incomplete content": 1}, lambda index: sql(index, "DELETE FROM vectors WHERE row = 2")),
    "row owned by nobody": (
        {"incomplete content": 1, "row without owner": 1},
        lambda index: sql(index, "DELETE FROM vectors WHERE row = 2", "DELETE FROM dead_rows")),
    "row counted as dead": (
        {"row owned and dead": 1}, lambda index: sql(index, "INSERT INTO dead_rows VALUES (1, 4)")),
    "dead row outside": ({"row outside": 1}, lambda index: sql(index, "INSERT INTO dead_rows VALUES (1, 99)")),
    "live row outside": (
        {"row outside": 1, "row without owner": 1},
        lambda index: sql(index, "UPDATE vectors SET row = 50 WHERE row = 3")),
    "fewer rows committed": (
        {"row outside": 1, "uncommitted bytes": 1}, lambda index: sql(index, "UPDATE spaces SET row_count = 7")),
    "segments gone": ({"incomplete content": 1}, lambda index: sql(
        index, "PRAGMA foreign_keys = ON", "DELETE FROM segments WHERE id = 3")),
    "segment number skipped": (
        {"incomplete content": 1}, lambda index: sql(index, "UPDATE segments SET ordinal = 4 WHERE id = 2")),
    "content without document": (
        {"unused content": 1, "new file": 1}, lambda index: sql(index, "DELETE FROM documents WHERE id = 1")),
    "other modality": (
        {"wrong modality": 2},
        lambda index: sql(index, "UPDATE documents SET modality = 'video' WHERE id = 1",
                          "UPDATE vectors SET modality = 'text' WHERE row = 1")),
    "wrong owner written down": (
        {"wrong row blocks": 1},
        lambda index: sql(index, "INSERT INTO row_blocks VALUES (1, 0, zeroblob(16), zeroblob(2))")),
    "torn row block": (
        {"wrong row blocks": 1}, lambda index: sql(index, "INSERT INTO row_blocks VALUES (1, 0, x'01', x'0001')")),
    "row block outside": (
        {"wrong row blocks": 1},
        lambda index: sql(index, "INSERT INTO row_blocks VALUES (1, 40, zeroblob(8), zeroblob(1))")),
    "empty root": (
        {"empty root": 1}, lambda index: sql(index, "INSERT INTO roots (path, is_relative) VALUES ('/gone', 0)")),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_named_and_mended(index: Index, photos: Path, encoder: ColourEncoder, damage: str) -> None:
    index.add(photos)
    expected, harm = DAMAGES[damage]
    harm(index)
    found = kinds(index.verify())
    assert found.items() >= expected.items()
    assert set(found) <= set(KINDS)
    mended = index.verify(mend=True, read_bytes=True)
    assert mended.clean, mended
    assert mended.documents == 8
    assert colours_found(index) == set(COLOURS)
    lost = {"cut vector file": 3, "vector file gone": 8}.get(damage, 1)
    assert encoder.encoded_images <= 8 + lost, "only what was lost is encoded again"


def test_codes_that_are_not_those_of_the_vectors(index: Index, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_file, "BLOCK", 4)
    index.add(photos)
    path = vectors_path(index).with_suffix(".u8")
    right = path.read_bytes()
    path.write_bytes(right[:-3] + b"\x01\x02\x03")
    assert kinds(index.verify()) == {"wrong codes": 1}
    assert index.verify(mend=True).clean
    assert path.read_bytes() == right
    overwrite_row(index, 2, np.nan)
    assert kinds(index.verify()) == {"bad vector": 1}
    assert index.verify(mend=True).clean
    assert colours_found(index) == set(COLOURS)


@pytest.mark.parametrize("ending", ["f16", "u8"])
def test_a_stray_vector_file_is_named_and_kept(index: Index, photos: Path, ending: str) -> None:
    index.add(photos)
    stray = index.path / f"vectors-0123456789ab.{ending}"
    stray.write_bytes(b"mine")
    assert kinds(index.verify(mend=True)) == {"stray file": 1}
    assert stray.exists()


def test_a_damaged_database_is_not_touched(index: Index, photos: Path) -> None:
    index.add(photos)
    path = index.path / "catalogue.sqlite"
    index.close()
    database = sqlite3.connect(path)  # not in the schema itself, or the index cannot even be opened
    tables = ("documents", "segments", "vectors", "contents")
    roots = [database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", [table]) for table in tables]
    pages = [page.fetchone()[0] for page in roots]
    database.close()
    data = bytearray(path.read_bytes())
    for page in pages:
        data[(page - 1) * 4096 : (page - 1) * 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)
    with Index.open(path.parent, encoder=ColourEncoder()) as opened:
        assert kinds(opened.verify()).keys() == {"damaged database"}
        with pytest.raises(IndexDamaged, match="cannot be mended"):
            opened.verify(mend=True)


def test_nobody_writes_meanwhile(index: Index, photos: Path) -> None:
    index.add(photos)
    with index._directory.writing(), pytest.raises(IndexBusy):
        index.verify()


def test_an_index_of_the_first_schema_can_be_verified(index: Index, photos: Path) -> None:
    """What was kept up to date before scopes were recorded is the whole of every root."""
    index.add(photos)
    sql(index, "DELETE FROM scopes", "INSERT INTO scopes SELECT id, '', '{}' FROM roots")
    assert index.verify().clean


@pytest.mark.parametrize("lost", ["vector file gone", "not finite"])
def test_a_row_that_is_lost_and_was_counted_as_dead(index: Index, photos: Path, lost: str) -> None:
    index.add(photos)
    sql(index, "INSERT INTO dead_rows VALUES (1, 3)")
    DAMAGES[lost][1](index)
    assert index.verify(mend=True).clean
    assert colours_found(index) == set(COLOURS)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(sorted(DAMAGES)), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(0, 7), max_size=3),
)
def test_any_mixture_of_damages_is_mended(
    tmp_path_factory: pytest.TempPathFactory, damages: list[str], deleted: list[int]
) -> None:
    place = tmp_path_factory.mktemp("mixture")
    for number, colour in enumerate(COLOURS):
        save_colour(place / "photos" / f"{colour}.png", colour, seed=number)
    with Index.open(place / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(place / "photos")
        for number in set(deleted):
            (place / "photos" / f"{list(COLOURS)[number]}.png").unlink()
        for damage in damages:
            try:
                DAMAGES[damage][1](index)
            except (FileNotFoundError, sqlite3.IntegrityError, IndexError, ValueError):
                continue  # what it would damage is gone already
        mended = index.verify(mend=True, read_bytes=True)
        assert mended.clean, mended
        left = set(COLOURS) - {list(COLOURS)[number] for number in deleted}
        hits = index.search("red", k=20, words=False)
        assert {Path(hit.path).stem for hit in hits} == left


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.5, 0.499, 0.52, float("nan"), float("inf"), -0.5]), max_size=60), st.data())
def test_bad_rows_are_those_that_a_loop_finds(values: list[float], data: st.DataObject) -> None:
    matrix = np.repeat(np.asarray(values, np.float16)[:, None], 4, axis=1)
    live = np.asarray(sorted(data.draw(st.sets(st.integers(0, max(0, len(values) - 1))))), np.int64)
    live = live[live < len(values)]
    expected = [row for row in live if not abs(np.linalg.norm(matrix[row].astype(float)) - 1) <= 0.01]
    assert rows_not_of_length_1(matrix, live).tolist() == expected


def test_a_copy_on_a_medium_without_write_access_can_be_verified(
    index: Index, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add(photos)
    path = index.path
    index.close()
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with Index.open(copy, encoder=ColourEncoder()) as opened:
        assert opened.verify().clean
