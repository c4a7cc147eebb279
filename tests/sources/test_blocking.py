"""What would block or never end: pipes, devices, holes, ignore files that are none, patterns that explode."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pathspec import GitIgnoreSpec

from mmsearch.api import Index
from mmsearch.core.errors import MediaError, UsageError
from mmsearch.core.regular import NotRegularError, open_regular, read_regular
from mmsearch.filters.paths import names_of
from mmsearch.sources import IGNORE_FILE, FileEntry, WalkRules, content_hash, hash_of, walk
from mmsearch.sources.base import Unreadable
from mmsearch.sources.ignoring import MAX_BYTES, without_going_back
from tests.support.colours import ColourEncoder, save_colour

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes and devices of POSIX")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_colour(tmp_path / "files" / "red.png", "red")
    return tmp_path / "files"


def met(folder: Path, below: str = "") -> list[FileEntry | Unreadable]:
    return list(walk(folder, WalkRules(), below))


def test_only_regular_files_are_read(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "full.md").symlink_to("/dev/full")
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        report = index.add(folder)
        assert (report.indexed, len(report.skipped)) == (1, 3)
        assert {skip.reason for skip in report.skipped} == {"not a regular file"}
        for name in ("pipe.jpg", "zero.jpg", "full.md"):
            assert len(index.add(folder / name).skipped) == 1
        with pytest.raises(UsageError, match="pipe"):
            index.search(image=folder / "pipe.jpg")


def test_a_file_that_was_swapped_for_a_pipe(folder: Path) -> None:
    path = folder / "red.png"
    seen = FileEntry("red.png", *[getattr(path.stat(), name) for name in ("st_size", "st_mtime_ns", "st_ctime_ns")])
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(MediaError, match="not a regular file"):
        content_hash(path, seen)
    with pytest.raises(NotRegularError):
        open_regular(path)
    with pytest.raises(NotRegularError):
        read_regular(Path("/dev/zero"), 10)


def test_nothing_is_read_past_the_size_that_was_seen(folder: Path) -> None:
    path = folder / "grows.txt"
    path.write_bytes(b"ab")
    found = path.stat()
    assert content_hash(path, FileEntry("grows.txt", 2, found.st_mtime_ns, 0)) == hash_of(b"ab")
    with pytest.raises(MediaError, match="changed"):
        content_hash(path, FileEntry("grows.txt", 1, found.st_mtime_ns, 0))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_files_that_the_system_makes_up_are_empty(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for name in ("kmsg", "self/environ", "self/maps"):
        (tmp_path / "files" / f"{name.replace('/', '-')}.txt").symlink_to(f"/proc/{name}")
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        report = index.add(tmp_path / "files")
    assert not report.indexed
    assert len(report.skipped) == 3


@pytest.mark.parametrize("name", ["hole.jpg", "hole.mp4", "hole.txt", "hole.csv", "hole.tar", "hole.png", "hole.ts"])
def test_a_hole_as_large_as_you_like_is_not_read(folder: Path, tmp_path: Path, name: str) -> None:
    with (folder / name).open("wb") as file:
        file.truncate(1 << 40)
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        report = index.add(folder)
    assert (report.indexed, len(report.skipped)) == (1, 1)


@pytest.mark.parametrize("kind", ["pipe", "device", "large"])
def test_an_ignore_file_that_cannot_be_read(folder: Path, tmp_path: Path, kind: str) -> None:
    """Nothing says what is to be left out, so nothing new comes in, and what is there stays."""
    save_colour(folder / "sub" / "blue.png", "blue")
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(folder)
        ignore = folder / "sub" / IGNORE_FILE
        if kind == "pipe":
            os.mkfifo(ignore)
        elif kind == "device":
            ignore.symlink_to("/dev/zero")
        else:
            with ignore.open("wb") as file:
                file.truncate(60 * MAX_BYTES)
        save_colour(folder / "sub" / "green.png", "green")
        report = index.add(folder)
        assert (report.indexed, report.removed, report.absent) == (0, 0, 0)
        [skip] = report.skipped
        assert IGNORE_FILE in skip.reason
        assert isinstance(met(folder, "sub")[0], Unreadable)
        ignore.unlink()
        assert index.add(folder).indexed == 1


PIECES = st.sampled_from(["a", "b", "*", "**", "/", "/**/", "?", "[ab]", "x"])


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=10).map("".join), st.text("abx/", min_size=1, max_size=12))
def test_quick_patterns_match_as_pathspec_does(pattern: str, path: str) -> None:
    import re

    try:
        spec = GitIgnoreSpec.from_lines([pattern])
    except ValueError:
        return
    path = "/".join(filter(None, path.split("/"))) or "a"
    for given_path in (path, path + "/"):
        for one in spec.patterns:
            if one.regex is not None:
                quick = re.compile(without_going_back(one.regex.pattern))
                assert bool(quick.match(given_path)) == bool(one.regex.match(given_path))


def test_patterns_take_linear_time(folder: Path) -> None:
    """It ends at all: going back over each star would take longer than anybody lives."""
    (folder / IGNORE_FILE).write_text(f"{'*a' * 30}b\n{'**/a/' * 20}c\n{'*a**' * 20}b\n")
    (folder / ("a" * 200)).mkdir()
    save_colour(folder / ("a" * 200) / f"{'a' * 200}.png", "blue")
    assert sum(isinstance(one, FileEntry) for one in met(folder)) == 2


def test_a_path_filter_has_a_length(folder: Path) -> None:
    with pytest.raises(UsageError, match="4,096"):
        names_of("*a" * 5000)
