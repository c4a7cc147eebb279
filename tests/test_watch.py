"""`--watch`: what changes on disk is soon found, once for each burst, and the end is clean."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest

from mmsearch.api import Index
from mmsearch.core.types import Report
from mmsearch.ingest import IngestOptions
from mmsearch.sources import WalkRules, is_left_out, walk
from mmsearch.watch import WatchOptions, _changes, _places, watch
from tests.support.colours import ColourEncoder, save_colour

QUICK = WatchOptions(quiet_s=0.1, longest_s=2.0, most_paths=20)


@contextmanager
def watching(
    index: Index, encoder: ColourEncoder, *paths: Path, options: IngestOptions | None = None
) -> Iterator[list[Report]]:
    reports: list[Report] = []
    stop, failures = threading.Event(), []

    def run() -> None:
        try:
            watch(index._directory, encoder, paths, options or IngestOptions(), reports.append, stop=stop,
                  watch_options=QUICK)  # fmt: skip
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        until(lambda: bool(reports) or bool(failures))
        yield reports
    finally:
        stop.set()
        thread.join(20)
    assert not failures
    assert not thread.is_alive()


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def names(index: Index) -> set[str]:
    rows = index._directory.catalogue.sql.execute("SELECT path FROM documents")
    return {path for (path,) in rows}


def test_every_kind_of_change_is_taken_up(index: Index, photos: Path, encoder: ColourEncoder) -> None:
    with watching(index, encoder, photos) as reports:
        assert reports[0].indexed == 8
        save_colour(photos / "new.png", "red", seed=40)
        until(lambda: "new.png" in names(index))
        (photos / "new.png").unlink()
        until(lambda: "new.png" not in names(index))
        (photos / "sub").rename(photos / "moved")
        until(lambda: "moved/red.png" in names(index) and "sub/red.png" not in names(index))
        (photos / "green.txt").write_text("the lawn")
        catalogue = index._directory.catalogue
        caption = "SELECT caption FROM documents WHERE path = 'green.png'"
        until(lambda: catalogue.sql.execute(caption).fetchone() == ("the lawn",))
        shutil.rmtree(photos / "moved")
        until(lambda: len(names(index)) == 4)
    assert encoder.encoded_images == 9, "what only moved is not encoded again"
    assert index.verify().clean


def test_a_burst_is_one_run_or_few(index: Index, photos: Path, encoder: ColourEncoder) -> None:
    with watching(index, encoder, photos) as reports:
        for number in range(60):  # more than most_paths: everything is looked at
            save_colour(photos / f"burst{number}.png", "blue", seed=100 + number)
        until(lambda: len(names(index)) == 68)
        assert len(reports) <= 6
    assert index.verify().clean


def test_ignored_files_stay_out(index: Index, photos: Path, encoder: ColourEncoder) -> None:
    (photos / ".mmsearchignore").write_text("private/\n")
    with watching(index, encoder, photos, options=IngestOptions(WalkRules(exclude=("*.gif",)))):
        save_colour(photos / "private" / "a.png", "red", seed=60)
        save_colour(photos / ".cache" / "a.png", "red", seed=61)
        save_colour(photos / "a.gif", "red", seed=62)
        save_colour(photos / "public" / "a.png", "red", seed=63)
        until(lambda: "public/a.png" in names(index))
        (photos / ".mmsearchignore").write_text("public/\n")
        until(lambda: "private/a.png" in names(index) and "public/a.png" not in names(index))
    assert len(names(index)) == 9


def test_an_index_among_the_photos_does_not_wake_itself(photos: Path, encoder: ColourEncoder) -> None:
    with (
        Index.open(photos / "index", create=True, encoder=encoder) as index,
        watching(index, encoder, photos) as reports,
    ):
        save_colour(photos / "new.png", "red", seed=40)
        until(lambda: "new.png" in names(index))
        time.sleep(0.8)
        assert len(reports) == 2


def test_changes_wait_while_another_process_writes(index: Index, photos: Path, encoder: ColourEncoder) -> None:
    with watching(index, encoder, photos):
        with index._directory.writing():
            save_colour(photos / "new.png", "red", seed=40)
            time.sleep(0.7)
            assert "new.png" not in names(index)
        until(lambda: "new.png" in names(index))


def test_a_folder_back_before_anybody_looks_again_is_looked_at(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen as gone, and there again as the same folder at the very next look."""
    away, looks = photos.with_name("unmounted"), []

    def places(paths: Sequence[Path]) -> dict[Path, tuple[object, ...]]:
        found = _places(paths)
        looks.append(found[photos])
        if looks[-1][0] is None:
            away.rename(photos)
        return found

    monkeypatch.setattr("mmsearch.watch._places", places)
    stop = threading.Event()
    changes = _changes([photos], tmp_path / "index", stop, QUICK)
    assert next(changes) == set()
    photos.rename(away)
    assert any(photos in found for found in islice(changes, 20)), "it was gone, so all of it may be another"
    assert (None,) in [look[:1] for look in looks] and photos.exists()
    (photos / "new.png").touch()
    assert any(photos / "new.png" in found for found in islice(changes, 20))


@pytest.mark.parametrize("empty", [False, True], ids=["no folder", "an empty folder"])
@pytest.mark.parametrize("at", ["", "sub"])
def test_a_folder_that_goes_away_is_no_deletion(
    index: Index, photos: Path, encoder: ColourEncoder, at: str, empty: bool
) -> None:
    """It is waited for, comes back without encoding, and is watched again then."""
    place, away = photos / at, photos.with_name("unmounted")
    if at and not empty:
        pytest.skip("a folder deleted from a folder that is there is a deletion")
    with watching(index, encoder, photos) as reports:
        place.rename(away)
        if empty:
            place.mkdir()
        until(lambda: bool(index.status()["documents"]["absent"]))
        gone = 8 if not at else 4
        assert len(names(index)) == 8 - gone and index.status()["documents"]["absent"] == gone
        if empty:
            place.rmdir()
        away.rename(place)
        until(lambda: len(names(index)) == 8)
        until(lambda: bool(reports[-1].back))
        assert encoder.encoded_images == 8
        save_colour(place / "new.png", "red", seed=40)
        until(lambda: len(names(index)) == 9)
    assert index.verify().clean


@pytest.mark.skipif(not hasattr(signal, "SIGINT") or os.name != "posix", reason="needs SIGINT")
def test_ctrl_c_ends_cleanly(photos: Path, tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    code = """
import sys
from pathlib import Path
from mmsearch.api import Index
from tests.support.colours import ColourEncoder
with Index.open(sys.argv[1], create=True, encoder=ColourEncoder()) as index:
    index.watch(Path(sys.argv[2]), lambda report: print(report.indexed, flush=True))
print("ended", flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "index"), str(photos)],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "8\n"
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=30)
    assert (rest, errors, process.returncode) == ("ended\n", "", 0)


def test_what_is_left_out_is_what_a_walk_leaves_out(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("a.png", ".hidden.png", "b/c.png", "b/.d/e.png", "@eaDir/x.png", "f/g.tmp", "f/h/i.png", "f/h/j.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "f" / ".mmsearchignore").write_text("h/\n")
    (root / "link").symlink_to(root / "b")
    for rules in (WalkRules(), WalkRules(hidden=True), WalkRules(exclude=("*.tmp", "b/*")), WalkRules(exclude=("f",))):
        met = {entry.path for entry in walk(root, rules)}
        for path in (path for path in root.rglob("*") if path.is_file() and not path.is_symlink()):
            below = path.relative_to(root).as_posix()
            assert is_left_out(root, rules, below) == (below not in met), (below, rules)
