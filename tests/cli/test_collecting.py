"""`query --copy-to` and `--link-to`: all that was found lies there once, and no file is changed or written over."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.cli.collecting import collect
from mmsearch.core.errors import UsageError
from tests.support.colours import save_colour
from tests.support.program import run_program as run
from tests.support.sound import save_video


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_clashes_are_numbered_and_the_same_file_comes_once(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a.tar.jpg").write_bytes(b"%d" % min(number, 1))
    os.utime(tmp_path / "0" / "a.tar.jpg", (1e9, 1e9))
    paths = [str(tmp_path / str(number) / "a.tar.jpg") for number in (0, 0, 1, 2)]
    for again in range(2):
        done = collect(paths, tmp_path / "to")
        assert contents(tmp_path / "to") == {"a.tar.jpg": b"0", "a.tar (2).jpg": b"1"}
        assert (len(done.made), len(done.there)) == ((2, 1) if not again else (0, 3)) and not done.missing
    assert (tmp_path / "to" / "a.tar.jpg").stat().st_mtime == 1e9
    done = collect(paths, tmp_path / "links", links=True)
    assert len(done.made) == 3 and all(place.is_symlink() for place in done.made)
    assert {place.readlink() for place in done.made} == {Path(path) for path in paths}
    assert not collect(paths, tmp_path / "links", links=True).made


def test_what_lies_there_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"new")
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "to" / "a.jpg").symlink_to(tmp_path / "precious")
    (tmp_path / "to" / "a (2).jpg").symlink_to(tmp_path / "nowhere")
    collect([str(tmp_path / "a.jpg")], tmp_path / "to")
    assert (tmp_path / "precious").read_bytes() == b"precious" and not (tmp_path / "nowhere").exists()
    assert (tmp_path / "to" / "a (3).jpg").read_bytes() == b"new"
    collect([str(tmp_path / "a.jpg")], tmp_path)  # into its own folder
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "precious", "to"]


def test_members_of_archives_are_taken_out(tmp_path: Path) -> None:
    photo = save_colour(tmp_path / "0001.png", "red")
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        tar.add(photo, "0001.png")
    member = str(tmp_path / "00000.tar" / "0001.png")
    assert collect([member, member], tmp_path / "to").made == [tmp_path / "to" / "0001.png"]
    assert (tmp_path / "to" / "0001.png").read_bytes() == photo.read_bytes()
    assert collect([member], tmp_path / "to").there
    [(_, reason)] = collect([member], tmp_path / "to", links=True).missing
    assert "archive" in reason


def test_what_is_gone_is_said_and_the_rest_is_copied(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    done = collect([str(tmp_path / "gone.jpg"), "https://example.org/x.jpg", str(tmp_path / "a.jpg")], tmp_path / "to")
    assert [place.name for place in done.made] == ["a.jpg"]
    assert [reason for _, reason in done.missing] == ["is not there any more"] * 2
    with pytest.raises(UsageError, match="cannot be made"):
        collect([], tmp_path / "a.jpg" / "to")


@given(names=st.lists(st.tuples(st.sampled_from("ab"), st.binary(max_size=2)), max_size=8), twice=st.booleans())
def test_every_content_lies_there_and_nothing_else(
    names: list[tuple[str, bytes]], twice: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("many")
    paths = []
    for number, (name, data) in enumerate(names):
        (folder / str(number)).mkdir()
        (folder / str(number) / name).write_bytes(data)
        paths.append(str(folder / str(number) / name))
    for _ in range(1 + twice):
        collect(paths, folder / "to")
    lying = sorted((path.name[0], path.read_bytes()) for path in (folder / "to").iterdir())
    assert lying == sorted(set(names))


def test_from_the_command_line(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    save_colour(photos / "x" / "red.png", "red", seed=1)
    save_colour(photos / "y" / "red.png", "red", (60, 30), seed=2)
    save_video(photos / "film.mp4", ["red", "blue", "red"])
    before = {path: path.read_bytes() for path in photos.rglob("*.*")}
    run("index", photos, home=tmp_path)
    done = run("query", "red", "--all", "--copy-to", tmp_path / "found", home=tmp_path)
    assert "3 files copied" in done.stderr
    assert {path.name for path in (tmp_path / "found").iterdir()} == {"red.png", "red (2).png", "film.mp4"}
    (photos / "x" / "red.png").unlink()
    done = run("query", "red", "--all", "--no-collapse", "--link-to", tmp_path / "links", home=tmp_path)
    assert "2 files linked" in done.stderr and "is not linked: is not there any more" in done.stderr
    del before[photos / "x" / "red.png"]
    assert {path: path.read_bytes() for path in photos.rglob("*.*")} == before
