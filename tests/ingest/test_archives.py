"""Tar archives of samples: read once, resumed, and accounted for member by member."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch.api import Index
from mmsearch.core.errors import UsageError
from mmsearch.core.types import Hit
from mmsearch.ingest import IngestOptions
from mmsearch.media import archive as archives
from mmsearch.media.archive import ArchiveReading, sample_key
from mmsearch.query.question import load_picture
from tests.support.colours import COLOURS, ColourEncoder, save_colour


def photo_bytes(colour: str, seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).integers(-12, 12, (30, 40, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def samples(start: int = 0) -> dict[str, bytes]:
    """One sample a colour, as img2dataset writes them."""
    members: dict[str, bytes] = {}
    for number, colour in enumerate(COLOURS, start=start):
        members[f"{number:09d}.png"] = photo_bytes(colour, number)
        members[f"{number:09d}.txt"] = f"something {colour}".encode()
        members[f"{number:09d}.json"] = json.dumps({"caption": "unused", "status": "success"}).encode()
    return members


def documents(index: Index) -> dict[str, str | None]:
    rows = index._directory.catalogue.sql.execute("SELECT path, caption FROM documents ORDER BY path")
    return dict(rows.fetchall())


def test_every_picture_of_an_archive_is_a_document(index: Index, tmp_path: Path, encoder: ColourEncoder) -> None:
    folder = tmp_path / "data"
    write_tar(folder / "00000.tar", samples())
    save_colour(folder / "00000.tar-notes.png", "red", seed=99)  # sorts between the archive and its samples
    report = index.add(folder)
    assert (report.indexed, report.skipped, encoder.encoded_images) == (9, (), 9)
    assert documents(index)["00000.tar/000000002.png"] == "something blue"
    assert index.search("blue", k=1)[0].path == str(folder / "00000.tar" / "000000002.png")
    again = index.add(folder)
    assert (again.unchanged, again.indexed, again.removed, encoder.encoded_images) == (9, 0, 0, 9)


def test_a_caption_in_json_counts_where_there_is_no_text(index: Index, tmp_path: Path) -> None:
    members = {"a.png": photo_bytes("red"), "a.json": b'{"caption": " a barn "}', "b.png": photo_bytes("blue"),
               "b.json": b"{broken"}  # fmt: skip
    write_tar(tmp_path / "data" / "0.tar", members)
    index.add(tmp_path / "data")
    assert documents(index) == {"0.tar/a.png": "a barn", "0.tar/b.png": None}


def test_a_changed_archive_is_compared_sample_by_sample(index: Index, tmp_path: Path, encoder: ColourEncoder) -> None:
    folder, members = tmp_path / "data", samples()
    write_tar(folder / "0.tar", members)
    index.add(folder)
    del members["000000000.png"], members["000000000.txt"], members["000000000.json"]
    members["000000001.png"] = photo_bytes("white", 50)
    members["000000099.png"] = photo_bytes("black", 51)
    write_tar(folder / "0.tar", members)
    os.utime(folder / "0.tar", ns=(5, 5))
    report = index.add(folder)
    assert (report.indexed, report.updated, report.removed, report.unchanged) == (1, 1, 1, 6)
    assert encoder.encoded_images == 10
    (folder / "0.tar").unlink()
    save_colour(folder / "other.png", "red")
    assert index.add(folder).removed == 8
    assert index._directory.catalogue.archives_below(1) == {}


def test_what_is_broken_in_an_archive_is_a_skip(index: Index, tmp_path: Path) -> None:
    members = {"a.png": photo_bytes("red"), "b.png": b"no picture", "c.csv": b"1,2", "d.txt": b"of no picture"}
    write_tar(tmp_path / "data" / "0.tar", members)
    (tmp_path / "data" / "1.tar").write_bytes(b"no archive " * 100)
    report = index.add(tmp_path / "data")
    reasons = {Path(skip.path).name: skip.reason for skip in report.skipped}
    assert report.indexed == 1
    assert set(reasons) == {"b.png", "0.tar", "1.tar"}
    assert "2 members" in reasons["0.tar"] and "not a tar archive" in reasons["1.tar"]
    again = index.add(tmp_path / "data")
    assert (again.unchanged, sorted(again.skipped, key=str)) == (1, sorted(report.skipped, key=str))


@pytest.mark.parametrize("damage", ["cut", "junk"])
def test_samples_before_the_damage_are_kept(index: Index, tmp_path: Path, damage: str) -> None:
    path = write_tar(tmp_path / "data" / "0.tar", samples())
    data = bytearray(path.read_bytes())
    middle = data.index(b"000000004.png") + (700 if damage == "cut" else 0)
    path.write_bytes(data[:middle] if damage == "cut" else data[:middle] + b"\xff" * 512 + data[middle + 512 :])
    report = index.add(tmp_path / "data")
    assert report.indexed == 4
    assert [Path(skip.path).name for skip in report.skipped] == ["0.tar"]
    assert "damaged" in report.skipped[0].reason


def test_an_interrupted_archive_goes_on_without_encoding_twice(
    index: Index, tmp_path: Path, encoder: ColourEncoder
) -> None:
    write_tar(tmp_path / "data" / "0.tar", samples())

    def interrupt(_: object) -> None:
        if encoder.encoded_images >= 4:
            raise KeyboardInterrupt

    first = index.add(tmp_path / "data", progress=interrupt)
    assert first.interrupted and 0 < first.indexed < 8
    assert index._directory.catalogue.archives_below(1) == {}
    encoded = encoder.encoded_images
    report = index.add(tmp_path / "data")
    assert report.indexed == 8 - first.indexed
    assert encoder.encoded_images == encoded + 8 - first.indexed
    assert len(index._directory.catalogue.archives_below(1)) == 1


def test_a_file_like_a_sample_does_not_take_its_document(index: Index, tmp_path: Path) -> None:
    """The sample's path leads nowhere on disk, and is no moved file for that."""
    write_tar(tmp_path / "data" / "0.tar", {"a.png": photo_bytes("red")})
    index.add(tmp_path / "data")
    (tmp_path / "data" / "plain.png").write_bytes(photo_bytes("red"))
    assert index.add(tmp_path / "data").indexed == 1
    assert set(documents(index)) == {"0.tar/a.png", "plain.png"}


def test_many_archives_give_what_their_files_would(index: Index, tmp_path: Path, encoder: ColourEncoder) -> None:
    """The oracle is the same pictures as files."""
    for number in range(4):
        write_tar(tmp_path / "data" / f"{number}.tar", samples(100 * number))
        for name, data in samples(100 * number).items():
            (tmp_path / "files").mkdir(exist_ok=True)
            (tmp_path / "files" / name).write_bytes(data)
    index.add(tmp_path / "data")
    in_archives = documents(index)
    index.remove(tmp_path / "data")
    index.add(tmp_path / "files")
    assert {Path(path).name: caption for path, caption in in_archives.items()} == documents(index)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 3000))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, junk: bytes, place: int) -> None:
    from mmsearch.core.errors import MediaError

    path = tmp_path_factory.mktemp("tar") / "x.tar"
    whole = write_tar(path, {"a.png": b"picture", "a.txt": b"caption", "b.png": b"other"}).read_bytes()
    path.write_bytes(whole[:place] + junk + whole[place + len(junk) :])
    try:
        names = [member.name for member in ArchiveReading(path).members()]
    except MediaError as error:
        assert str(error)
    else:
        assert len(names) <= 20


def test_the_members_of_a_sample_share_the_name_up_to_the_first_dot() -> None:
    assert sample_key("000.seg.png") == sample_key("000.txt") == "000"
    assert sample_key("a.b/000.png") == "a.b/000"


def video_bytes(folder: Path, name: str, colours: tuple[str, ...]) -> bytes:
    """Two seconds of each colour."""
    path = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number, colour in enumerate(colours):
            for _ in range(20):
                pixels = np.asarray(Image.open(io.BytesIO(photo_bytes(colour, number))).resize((64, 48)))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


def test_videos_of_an_archive_give_the_moments_that_their_files_give(index: Index, tmp_path: Path) -> None:
    """The oracle is the same video as a file; a damaged one beside it is a skip of its own."""
    data = video_bytes(tmp_path / "files", "clip.mp4", ("red", "green", "blue"))
    write_tar(tmp_path / "data" / "0.tar", {"7.mp4": data, "7.txt": b"three colours", "7.json": b"{}",
                                            "8.mkv": b"no video", "9.png": photo_bytes("white")})  # fmt: skip
    report = index.add(tmp_path / "data")
    assert {Path(skip.path).name for skip in report.skipped} == {"8.mkv"}
    assert documents(index) == {"0.tar/7.mp4": "three colours", "0.tar/9.png": None}
    in_archive = [(hit.start_s, hit.end_s, round(hit.score, 3)) for hit in moments(index)]
    index.remove(tmp_path / "data")
    index.add(tmp_path / "files")
    assert in_archive == [(hit.start_s, hit.end_s, round(hit.score, 3)) for hit in moments(index)]
    assert index.add(tmp_path / "files").unchanged == 1


def test_what_an_archive_holds_can_be_shown_and_asked_with(index: Index, tmp_path: Path) -> None:
    members = samples() | {"clip.mp4": video_bytes(tmp_path / "files", "clip.mp4", ("red", "green", "blue"))}
    archive = write_tar(tmp_path / "data" / "0.tar", members)
    index.add(tmp_path / "data")
    hit = index.search("violet type:image", k=1, words=False)[0]
    shown = np.asarray(load_picture(Path(hit.path)))
    np.testing.assert_array_equal(shown, np.asarray(Image.open(io.BytesIO(members[Path(hit.path).name]))))
    assert [found.path for found in index.search(image=hit.path, k=1)] == [hit.path]
    frame = np.asarray(load_picture(archive / "clip.mp4", at_s=2.0)).mean(axis=(0, 1))
    assert np.abs(frame - COLOURS["green"]).max() < 30
    for lacking in (archive / "none.png", tmp_path / "none.tar" / "a.png"):
        with pytest.raises(UsageError, match="there is no file"):
            load_picture(lacking)
    archive.write_bytes(b"no archive" * 200)
    with pytest.raises(UsageError, match="there is no file"):
        load_picture(Path(hit.path))


def moments(index: Index) -> list[Hit]:
    """The best moment of the video for each of its colours."""
    found = [index.search(f"{colour} type:video", k=1, words=False)[0] for colour in ("red", "green", "blue")]
    assert [round(hit.start_s or 0) for hit in found] == [0, 2, 4]
    return found


def test_members_that_are_too_large_are_counted(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 3000)
    write_tar(tmp_path / "data" / "0.tar", {"a.png": photo_bytes("red"), "b.png": b"x" * 4000, "c.exe": b""})
    [skip] = index.add(tmp_path / "data").skipped
    assert "1 members are no pictures" in skip.reason and "1 members are larger" in skip.reason


@pytest.mark.parametrize("memory_mb", [1e-6, 0.01])
def test_waiting_samples_stay_inside_the_budget(index: Index, tmp_path: Path, memory_mb: float) -> None:
    """Of archives whose samples do not fit, each reader holds the one that it reads."""
    for number in range(3):
        write_tar(tmp_path / "data" / f"{number}.tar", samples(100 * number))
    assert index.add(tmp_path / "data", options=IngestOptions(readers=4, memory_mb=memory_mb)).indexed == 24
