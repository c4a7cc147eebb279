"""What vanished with its place is kept, what was deleted is dropped: the rule, and what a run makes of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.api import Index
from mmsearch.core.types import Report
from mmsearch.ingest import IngestOptions
from mmsearch.pipeline.vanished import LARGE, Level, Place, has_vanished, is_another
from mmsearch.sources import WalkRules
from mmsearch.store.local.catalogue import FolderIdentity
from tests.support.colours import COLOURS, ColourEncoder, save_colour

folders = st.builds(FolderIdentity, st.integers(1, 3), st.integers(1, 3), st.booleans())


@st.composite
def places(draw: st.DrawFn) -> Place:
    held = draw(st.integers(1, 60))
    now = draw(st.none() | folders)
    is_empty = now is not None and draw(st.booleans())
    gone = held if now is None or is_empty else draw(st.integers(0, held))
    return Place(draw(st.sampled_from(Level)), held, gone, draw(st.none() | folders), now, is_empty)


@given(places())
def test_an_ordinary_deletion_is_one(place: Place) -> None:
    """A few files of a folder that is the same as before, whatever it is."""
    same = place.now is not None and place.before is not None and not is_another(place.before, place.now)
    mounted = place.before is not None and place.before.is_mount
    few = place.gone < LARGE or 2 * place.gone <= place.held
    if same and few and not mounted and not (place.is_empty and place.level is Level.ROOT):
        assert not has_vanished(place)
    if place.level is Level.BELOW and not mounted and (same or place.now is None):
        assert not has_vanished(place), "an album may be deleted"


@given(places())
def test_a_place_that_vanished_is_one(place: Place) -> None:
    if not place.gone:
        assert not has_vanished(place)
        return
    if place.level is Level.ROOT and (place.now is None or place.is_empty):
        assert has_vanished(place)
    if place.before is not None and place.before.is_mount and (place.now is None or not place.now.is_mount):
        assert has_vanished(place), "a mount point that lost its mount"
    if place.is_empty and (place.before is None or (place.now and is_another(place.before, place.now))):
        assert has_vanished(place), "an empty folder that is not the one that held the files"
    if place.level is not Level.BELOW and place.now and place.gone >= LARGE and 2 * place.gone > place.held:
        assert has_vanished(place), "a large part of it"


@given(places(), st.integers(1, 5))
def test_more_missing_never_makes_it_a_deletion(place: Place, more: int) -> None:
    if has_vanished(place) and place.now is not None and place.gone + more <= place.held:
        assert has_vanished(Place(place.level, place.held, place.gone + more, place.before, place.now, place.is_empty))


def test_another_number_of_the_device_is_the_same_folder() -> None:
    assert not is_another(FolderIdentity(1, 7, True), FolderIdentity(2, 7, True)), "after a restart"
    assert is_another(FolderIdentity(1, 7, True), FolderIdentity(2, 7, False))
    assert is_another(FolderIdentity(1, 7, False), FolderIdentity(1, 8, False))


@pytest.fixture
def encoder() -> ColourEncoder:
    return ColourEncoder()


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """``lib/share`` with twelve photos, four of them deeper, and ``lib/own`` with three."""
    for number, colour in enumerate([*COLOURS, *list(COLOURS)[:4]]):
        folder = tmp_path / "lib" / "share" / ("2019/trip" if number >= 8 else "")
        folder.mkdir(parents=True, exist_ok=True)
        save_colour(folder / f"{colour}{number}.png", colour, seed=number)
    (tmp_path / "lib" / "own").mkdir()
    for number, colour in enumerate(list(COLOURS)[:3]):
        save_colour(tmp_path / "lib" / "own" / f"{colour}.png", colour, seed=50 + number)
    return tmp_path / "lib"


@pytest.fixture
def index(tmp_path: Path, encoder: ColourEncoder) -> Iterator[Index]:
    with Index.open(tmp_path / "index", create=True, encoder=encoder) as opened:
        yield opened


def found(index: Index) -> set[str]:
    """Names of all that any way of searching gives."""
    by_meaning = {Path(hit.path).name for colour in COLOURS for hit in index.search(colour, k=50)}
    assert by_meaning == {Path(hit.path).name for hit in index.search("type:image", k=50)}
    assert by_meaning == {Path(hit.path).name for hit in index.search("red type:image", k=50)}
    return by_meaning


def photos(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*.png")}


@pytest.mark.parametrize("place", [".", "share", "share/2019", "share/2019/trip"])
@pytest.mark.parametrize("pointed_at", [".", "the place"])
@pytest.mark.parametrize("state", ["empty", "replaced", "missing root"])
def test_a_place_that_vanishes_keeps_its_vectors(
    index: Index, encoder: ColourEncoder, library: Path, tmp_path: Path, place: str, pointed_at: str, state: str
) -> None:
    """Unmounted, replaced, gone: left out of results, said, and back at once."""
    named = library if pointed_at == "." else library / place
    if state == "missing root" and named != library / place:
        pytest.skip("a folder that is not in the folder above was deleted")
    index.add(library)
    index.add(named)
    everything, encoded, vectors = photos(library), encoder.encoded_images, index.status()["vectors"]
    lost = photos(library / place)
    away = tmp_path / "away"
    (library / place).rename(away)
    if state != "missing root":
        (library / place).mkdir()
    if state == "replaced":
        save_colour(library / place / "other.png", "red", seed=99)
    report = index.add(named)
    assert (report.removed, report.absent) == (0, len(lost))
    assert report.absent_at == (str(library / place),)
    assert found(index) == everything - lost | ({"other.png"} if state == "replaced" else set())
    status = index.status()["documents"]
    assert (status["absent"], status["image"]) == (len(lost), len(everything) + (state == "replaced"))
    assert index.add(named).absent == len(lost), "it is said again, as long as it holds"
    after = index.verify(mend=True)
    assert index.status()["documents"]["absent"] == len(lost), "mending leaves them too"
    if state != "missing root":
        assert after.clean
    shutil.rmtree(library / place, ignore_errors=True)
    away.rename(library / place)
    report = index.add(named)
    assert report.back == len(lost) and report.absent == 0
    assert encoder.encoded_images == encoded + (state == "replaced")
    assert found(index) == everything
    assert index.status()["vectors"] == vectors + (state == "replaced")
    assert index.verify().clean


def test_another_time_is_no_other_content(index: Index, encoder: ColourEncoder, library: Path, tmp_path: Path) -> None:
    """A disk that comes back with other times (a copy of it) costs hashes, no encoding."""
    index.add(library)
    (library / "share").rename(tmp_path / "away")
    (library / "share").mkdir()
    assert index.add(library).absent == 12
    shutil.copytree(tmp_path / "away", library / "share", dirs_exist_ok=True)
    for path in (library / "share").rglob("*.png"):
        os.utime(path, (1, 1))
    assert index.add(library).absent == 0
    assert encoder.encoded_images == 15
    assert found(index) == photos(library)


@pytest.mark.parametrize("way", ["forget_missing", "remove"])
def test_it_can_be_confirmed(index: Index, library: Path, way: str) -> None:
    index.add(library)
    shutil.rmtree(library / "share")
    (library / "share").mkdir()
    assert index.add(library).absent == 12
    if way == "remove":
        assert index.remove(library / "share") == 12
    else:
        assert index.add(library, options=IngestOptions(forget_missing=True)).removed == 12
    assert index.add(library).absent == 0
    assert index.status()["documents"]["image"] == 3
    assert index.status()["documents"]["dead_rows"] == 12
    assert index.verify().clean


@pytest.mark.parametrize(
    "victims", [["own/red.png"], ["own/red.png", "own/green.png", "own/blue.png"], ["share/2019"], ["own"]]
)
def test_deletions_stay_deletions(index: Index, library: Path, victims: list[str]) -> None:
    index.add(library)
    for victim in victims:
        place = library / victim
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    report = index.add(library)
    assert (report.absent, report.removed) == (0, 15 - len(photos(library)))
    assert found(index) == photos(library)
    assert index.verify().clean


def test_most_of_a_folder_is_too_much_to_believe(index: Index, library: Path) -> None:
    index.add(library)
    shutil.rmtree(library / "share")
    assert index.add(library).absent == 12, "12 of 15"


def test_a_move_is_a_move(index: Index, encoder: ColourEncoder, library: Path) -> None:
    index.add(library)
    (library / "share").rename(library / "renamed")
    (library / "share").mkdir()
    report = index.add(library)
    assert (report.updated, report.absent, report.removed) == (12, 0, 0)
    assert encoder.encoded_images == 15


def test_what_is_left_out_on_purpose_goes(index: Index, library: Path) -> None:
    index.add(library)
    assert index.add(library, options=IngestOptions(WalkRules(exclude=("share",)))).removed == 12
    index.add(library)
    (library / "share").rename(library.parent / "away")
    (library / "share").mkdir()
    assert index.add(library).absent == 12
    (library / "share").rmdir()
    (library.parent / "away").rename(library / "share")
    assert index.add(library, options=IngestOptions(WalkRules(exclude=("share",)))).removed == 12, "absent ones too"


def test_compaction_keeps_what_is_absent(index: Index, encoder: ColourEncoder, library: Path, tmp_path: Path) -> None:
    from mmsearch.store.local.optimize import compact

    index.add(library)
    (library / "own" / "red.png").unlink()
    (library / "share").rename(tmp_path / "away")
    (library / "share").mkdir()
    report = index.add(library)
    assert (report.removed, report.absent) == (1, 12)
    with index._directory.writing() as writable:
        assert compact(writable) == 1
    (library / "share").rmdir()
    (tmp_path / "away").rename(library / "share")
    assert index.add(library).back == 12
    assert encoder.encoded_images == 15 and found(index) == photos(library)


def test_both_tables_of_documents_have_the_same_columns(index: Index) -> None:
    """A later step of the schema that adds a column must add it to both."""
    sql = index._directory.catalogue.sql
    shapes = [sql.execute(f"PRAGMA table_info({table})").fetchall() for table in ("documents", "absent_documents")]
    assert shapes[0] == shapes[1]


def test_report_is_plain() -> None:
    assert Report().absent == 0


@pytest.mark.slow
@pytest.mark.parametrize("debris", [False, True], ids=["", "with a file below the mount point"])
@pytest.mark.parametrize("at", [".", "share", "a/b/share"])
def test_a_disk_that_is_really_unmounted(
    index: Index, encoder: ColourEncoder, tmp_path: Path, at: str, debris: bool
) -> None:
    library, image = tmp_path / "lib", tmp_path / "disk.img"
    place = library / at
    place.mkdir(parents=True)
    if debris:
        (place / "readme.md").write_text("the disk is not mounted here")
    with image.open("wb") as file:
        file.truncate(16 << 20)

    def run(*command: object) -> bool:
        try:
            return subprocess.run([str(part) for part in command], capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            return False

    if not (run("mkfs.ext4", "-q", image) and run("mount", "-o", "loop", image, place)):
        pytest.skip("nothing can be mounted here")
    try:
        for number, colour in enumerate(COLOURS):
            save_colour(place / f"{colour}.png", colour, seed=number)
        index.add(library)
        for unmounted in (lambda: index.add(library), lambda: index.add(place), lambda: index.verify(mend=True)):
            assert run("umount", place)
            unmounted()
            assert index.status()["documents"]["absent"] == len(COLOURS)
            assert run("mount", "-o", "loop", image, place)
            assert index.add(library).back == len(COLOURS)
        assert encoder.encoded_images == len(COLOURS)
    finally:
        run("umount", place)


@pytest.mark.parametrize("was_absent", [False, True])
def test_a_disk_that_comes_back_while_a_run_goes_on_loses_nothing(
    index: Index, photos: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch, was_absent: bool
) -> None:
    """After the walk, which met nothing, and before what was not met is judged."""
    from mmsearch.ingest import run

    index.add(photos)
    away = photos.with_name("unmounted")
    photos.rename(away)
    if was_absent:
        index.add(photos)
    original = run.judge

    def comes_back(*arguments: Any) -> Any:
        away.rename(photos)
        return original(*arguments)

    monkeypatch.setattr(run, "judge", comes_back)
    assert index.add(photos).removed == 0
    monkeypatch.undo()
    report = index.add(photos)
    assert (report.removed, report.absent, report.unchanged, encoder.encoded_images) == (0, 0, 8, 8)
    assert index.verify().clean
