"""Whatever bytes lie under whatever supported name: a run ends, every file is accounted for, the next run agrees."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsearch.api import Index
from mmsearch.media import SUFFIXES
from tests.support.colours import ColourEncoder, save_colour

MAGIC = [
    b"", b"\xff\xd8\xff\xe0\0\x10JFIF\0", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"GIF89a", b"RIFF\x10\0\0\0WEBPVP8 ", b"BM",
    b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"\0\0\0\x18ftypheic", b"\0\0\0\x18ftypmp42", b"\0\0\0\x18ftypavif",
    b"\x1aE\xdf\xa3", b"RIFF\x10\0\0\0AVI LIST", b"\xef\xbb\xbf", b"caption,x\n", b'{"caption": ', b"P6\n4 4\n255\n",
    b"\0\0\0\x0cjP  \r\n\x87\n", b"OggS", b"FLV\x01", b"\0\0\x01\xba", b"G@\0\x10",
]  # fmt: skip
SUFFIX = st.sampled_from([*sorted(SUFFIXES), ".tar", ".TAR", ".xmp", ""])
FILES = st.lists(st.tuples(SUFFIX, st.sampled_from(MAGIC), st.binary(max_size=300)), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FILES)
def test_any_bytes_are_indexed_or_skipped_with_a_reason(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, bytes, bytes]]
) -> None:
    place = tmp_path_factory.mktemp("any")
    for number, (suffix, magic, rest) in enumerate(files):
        (place / f"{number}{suffix}").write_bytes(magic + rest)
    save_colour(place / "good.png", "red")
    with Index.open(place / "index", create=True, encoder=ColourEncoder()) as index:
        report = index.add(place)
        assert report.indexed + len(report.skipped) == len(files) + 1
        assert all(skip.reason for skip in report.skipped)
        assert index.search("red", k=1, words=False)[0].path.endswith("good.png")
        again = index.add(place)
        assert (again.indexed, again.updated, again.removed) == (0, 0, 0)
        assert again.unchanged == report.indexed
        assert sorted(again.skipped, key=str) == sorted(report.skipped, key=str)
        assert index.verify(read_bytes=True).clean


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "a/c", "…"]), SUFFIX, st.binary(max_size=200)), max_size=6))
def test_any_members_of_an_archive_too(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, str, bytes]]
) -> None:
    place = tmp_path_factory.mktemp("tar")
    with tarfile.open(place / "0.tar", "w") as tar:
        for name, suffix, data in members:
            info = tarfile.TarInfo(name + suffix)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with Index.open(place / "index", create=True, encoder=ColourEncoder()) as index:
        report = index.add(place)
        again = index.add(place)
        assert (again.unchanged, len(again.skipped)) == (report.indexed, len(report.skipped))
        assert index.verify().clean
