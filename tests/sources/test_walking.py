"""Walking folders: order, links, ignore rules, identity."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.core.errors import MediaError
from mmsearch.sources import FileEntry, Unreadable, WalkRules, content_hash, walk
from mmsearch.sources.walking import is_system_folder

NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=6
)


EVERYTHING = WalkRules()


def paths(root: Path, rules: WalkRules = EVERYTHING, below: str = "") -> list[str]:
    return [entry.path for entry in walk(root, rules, below)]


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NAMES, NAMES), max_size=12))
def test_files_come_in_the_order_of_their_whole_paths(tmp_path_factory: pytest.TempPathFactory, names: list) -> None:
    root = tmp_path_factory.mktemp("walk")
    for folder, name in names:
        try:
            make(root, f"{folder}/{name}", f"{folder}.x", name)
        except OSError:
            continue  # "." and "..", or a file where a folder is wanted
    found = paths(root, WalkRules(hidden=True))
    oracle = [Path(folder, name).relative_to(root).as_posix() for folder, _, files in os.walk(root) for name in files]
    assert found == sorted(found)
    oracle = [path for path in oracle if not any(map(is_system_folder, path.split("/")))]
    assert found == sorted(path for path in oracle if path not in ("", "."))


def test_a_loop_ends_where_it_starts(tmp_path: Path) -> None:
    make(tmp_path, "a/b/file.txt")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    (tmp_path / "top").symlink_to(tmp_path)
    met = list(walk(tmp_path, WalkRules()))
    assert [entry.path for entry in met if isinstance(entry, FileEntry)] == ["a/b/file.txt"]
    assert sorted(entry.path for entry in met if isinstance(entry, Unreadable)) == ["a/b/up", "a/self", "top"]


def test_a_linked_folder_outside_is_followed_once(tmp_path: Path) -> None:
    make(tmp_path, "outside/file.txt", "root/own.txt")
    for name in ("one", "two"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "outside")
    met = list(walk(tmp_path / "root", WalkRules()))
    assert [entry.path for entry in met] == ["one/file.txt", "own.txt", "two"]
    assert isinstance(met[-1], Unreadable)


def test_a_linked_file_counts_as_a_file(tmp_path: Path) -> None:
    make(tmp_path, "outside.txt", "root/own.txt")
    (tmp_path / "root" / "link.txt").symlink_to(tmp_path / "outside.txt")
    assert paths(tmp_path / "root") == ["link.txt", "own.txt"]


def test_ignore_files_hold_for_what_lies_below_them(tmp_path: Path) -> None:
    make(tmp_path, "a/keep.txt", "a/drop.txt", "b/drop.txt", "a/c/drop.txt", "a/c/other.log", "other.log")
    (tmp_path / "a" / ".mmsearchignore").write_text("drop.txt\n# a comment\n/c/*.log\n")
    assert paths(tmp_path) == ["a/keep.txt", "b/drop.txt", "other.log"]
    assert paths(tmp_path, below="a/c") == []
    assert paths(tmp_path, WalkRules(exclude=("b/",))) == ["a/keep.txt", "other.log"]


def test_names_that_are_no_text_are_reported(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (met,) = walk(tmp_path, WalkRules())
    assert isinstance(met, Unreadable)
    assert (met.path, "UTF-8" in met.reason) == ("caf\\xe9.txt", True)


def test_pipes_are_reported_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (met,) = walk(tmp_path, WalkRules())
    assert met == Unreadable("pipe.jpg", "not a regular file", is_directory=False)


def test_the_hash_tells_equal_sizes_apart(tmp_path: Path) -> None:
    make(tmp_path, "a.bmp", "b.bmp")
    entries = [entry for entry in walk(tmp_path, WalkRules()) if isinstance(entry, FileEntry)]
    hashes = {content_hash(tmp_path / entry.path, entry) for entry in entries}
    assert len(hashes) == 2 and len({entry.size for entry in entries}) == 1


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "a.txt")
    (entry,) = walk(tmp_path, WalkRules())
    assert isinstance(entry, FileEntry)
    (tmp_path / "a.txt").write_text("something longer than before")
    with pytest.raises(MediaError, match="changed"):
        content_hash(tmp_path / "a.txt", entry)
