"""Text in pictures: read once, added later, found by whole words and parts of codes, at the right time of a video.

Most tests use a small reader of their own, whose letters are squares of grey: all of the way from the pixels to the
answer is real. Those at the end read real text with the extra.
"""

from __future__ import annotations

import json
import re
import tarfile
import unicodedata
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from mmsearch.api import Index
from mmsearch.core.errors import UsageError
from mmsearch.core.extras import install_hint
from mmsearch.core.letters import letters_of, lines_with, sought_letters
from mmsearch.core.types import Report
from mmsearch.ingest import IngestOptions
from mmsearch.media import ocr
from mmsearch.media.ocr import TextReader, has_text_reader, open_text_reader
from mmsearch.store.local.catalogue import read_text
from tests.support.colours import COLOURS, ColourEncoder
from tests.support.program import run_program as run

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 "
CELL = 16


class GreyReader(TextReader):
    """Reads a first row of squares, each in the grey of its letter; anything that is not grey ends the line."""

    def __init__(self, name: str = "grey 1") -> None:
        self.name = name
        self.looked_at = 0

    def read(self, image: Image.Image) -> list[str]:
        self.looked_at += 1
        pixels = np.asarray(image).astype(int)
        line = ""
        for left in range(0, image.width - CELL + 1, CELL):
            square = pixels[4 : CELL - 4, left + 4 : left + CELL - 4].reshape(-1, 3).mean(axis=0)
            if np.ptp(square) > 12:
                break
            line += ALPHABET[max(0, min(round((square.mean() - 16) / 6), len(ALPHABET) - 1))]
        if line.startswith("BUG"):
            raise RuntimeError("no such letter")
        return [line] if line else []


def painted(text: str, colour: str = "red") -> np.ndarray:
    pixels = np.full((96, CELL * 12, 3), COLOURS[colour], dtype=np.uint8)
    for place, letter in enumerate(text):
        pixels[:CELL, place * CELL : (place + 1) * CELL] = 16 + 6 * ALPHABET.index(letter)
    return pixels


def save_text(path: Path, text: str, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(painted(text, colour)).save(path)
    return path


def save_clip(path: Path, scenes: list[tuple[str, str]], each_s: int = 4) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = CELL * 12, 96, "yuv444p"
        stream.codec_context.time_base = Fraction(1, 10)
        stream.options = {"crf": "4", "preset": "ultrafast"}
        for number in range(10 * each_s * len(scenes)):
            frame = av.VideoFrame.from_ndarray(painted(*scenes[number // (10 * each_s)]), "rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(index: Index, folder: Path, reader: TextReader) -> Report:
    return index.add(folder, options=IngestOptions(ocr=reader))


@pytest.fixture
def signs(tmp_path: Path) -> Path:
    folder = tmp_path / "signs"
    for number, (text, colour) in enumerate(
        [("RE16 TGK", "blue"), ("NO PARKING", "green"), ("START", "yellow"), ("", "red"), ("", "blue")]
    ):
        save_text(folder / f"sign{number}.png", text, colour)
    return folder


def test_a_wide_picture_is_read_whole_and_every_part_has_its_text(index: Index, tmp_path: Path) -> None:
    (tmp_path / "signs").mkdir()
    Image.fromarray(painted("NO PARKING")[:64]).save(tmp_path / "signs" / "wide.png")
    assert read(index, tmp_path / "signs", GreyReader()).segments == 4
    rows = index._directory.catalogue.sql.execute("SELECT text FROM segment_readings").fetchall()
    assert rows == [("NO PARKING",)] * 4


def test_what_is_read_is_found(index: Index, signs: Path) -> None:
    assert read(index, signs, GreyReader()).text_read == 5
    [hit] = index.search("parking", k=1)
    assert Path(hit.path).name == "sign1.png"
    assert hit.read == "NO PARKING"
    assert hit.parts["words"] > 0
    assert sum(hit.parts.values()) == pytest.approx(hit.score)
    assert index.search("violet", k=1)[0].read is None
    assert index.explain("parking", hit.path).words == {"picture": ("parking",)}
    assert index.status()["ocr"] == {"read": 5, "with_text": 3, "failed": 0}


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("RE16", {"sign0.png"}),
        ("re16 tgk", {"sign0.png"}),
        ('"RE16TGK"', {"sign0.png"}),
        ('"E16 T"', {"sign0.png"}),
        ("16", set()),  # too short to look for inside of a word
        ('"NO PARKING"', {"sign1.png"}),
        ('"NOPARKING"', {"sign1.png"}),
        ("parkin", {"sign1.png"}),
        ("art", set()),  # a short word is no part of another
        ('"art"', set()),
        ('"start"', {"sign2.png"}),
        ('"start" -parking', {"sign2.png"}),
    ],
)
def test_whole_words_and_parts_of_codes(index: Index, signs: Path, question: str, found: set[str]) -> None:
    read(index, signs, GreyReader())
    assert {Path(hit.path).name for hit in index.search(question) if hit.read} == found


def test_excluded_words_are_not_read_either(index: Index, signs: Path) -> None:
    read(index, signs, GreyReader())
    assert {Path(hit.path).name for hit in index.search("-parking")} == {f"sign{n}.png" for n in (0, 2, 3, 4)}


def test_it_can_be_added_later_without_embedding_again_and_is_not_done_twice(
    index: Index, signs: Path, encoder: ColourEncoder
) -> None:
    index.add(signs)
    vectors, reader = encoder.encoded_images, GreyReader()
    report = read(index, signs, reader)
    assert (report.indexed, report.unchanged, report.text_read) == (0, 5, 5)
    assert (encoder.encoded_images, reader.looked_at) == (vectors, 5)
    assert index.search("parking", k=1)[0].read == "NO PARKING"
    assert read(index, signs, reader).text_read == 0 and reader.looked_at == 5
    save_text(signs / "new.png", "EXIT", "violet")
    assert read(index, signs, reader).text_read == 1 and reader.looked_at == 6
    assert read(index, signs, other := GreyReader("grey 2")).text_read == 6 and other.looked_at == 6


def test_copies_are_read_once_and_moved_files_keep_their_text(index: Index, signs: Path) -> None:
    (signs / "copy.png").write_bytes((signs / "sign1.png").read_bytes())
    reader = GreyReader()
    assert read(index, signs, reader).text_read == 5
    assert len(index.search('"no parking"')) == 2
    (signs / "sign0.png").rename(signs / "moved.png")
    assert read(index, signs, reader).text_read == 0
    assert Path(index.search("re16", k=1)[0].path).name == "moved.png"


def test_what_is_removed_is_found_no_more(index: Index, signs: Path) -> None:
    read(index, signs, GreyReader())
    index.remove(signs / "sign1.png")
    assert index.search('"no parking"') == []
    sql = index._directory.catalogue.sql
    for table, left in (("readings", 4), ("segment_readings", 2), ("picture_words", 2), ("picture_letters", 2)):
        assert sql.execute(f"SELECT count(*) FROM {table}").fetchone() == (left,)


def test_only_what_was_named_is_read(index: Index, signs: Path) -> None:
    save_text(signs / "sub" / "inner.png", "EXIT")
    index.add(signs)
    assert read(index, signs / "sub", GreyReader()).text_read == 1


def test_a_failure_is_recorded_and_ends_nothing(index: Index, signs: Path) -> None:
    save_text(signs / "bug.png", "BUG", "violet")
    reader = GreyReader()
    report = read(index, signs, reader)
    assert (report.indexed, report.text_read, len(report.skipped)) == (6, 5, 0)
    assert [(Path(one.path).name, "no such letter" in one.reason) for one in report.text_unread] == [("bug.png", True)]
    assert index.status()["ocr"]["failed"] == 1
    assert read(index, signs, reader).text_unread == () and reader.looked_at == 6
    assert index.search("violet", k=1)[0].path.endswith("bug.png")


def test_a_file_that_goes_meanwhile_is_left_for_the_next_run(index: Index, signs: Path) -> None:
    class Thief(GreyReader):
        def read(self, image: Image.Image) -> list[str]:
            (signs / "sign4.png").unlink(missing_ok=True)
            return super().read(image)

    report = read(index, signs, Thief())
    assert (report.text_read, report.text_unread) == (4, ())


def test_an_interrupt_keeps_what_was_read(index: Index, signs: Path) -> None:
    class Interrupted(GreyReader):
        def read(self, image: Image.Image) -> list[str]:
            if self.looked_at == 2:
                raise KeyboardInterrupt
            return super().read(image)

    report = read(index, signs, Interrupted())
    assert report.interrupted and report.text_read == 2
    reader = GreyReader()
    assert read(index, signs, reader).text_read == 3 and reader.looked_at == 3


def test_text_of_a_video_tells_its_moment(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    save_clip(folder / "clip.mp4", [("INTRO", "red"), ("GATE B22", "green"), ("", "blue")])
    save_text(folder / "still.png", "", "yellow")
    read(index, folder, GreyReader())
    for question in ("gate b22", "B22", '"gate b22"'):
        hit = index.search(question, k=1)[0]
        assert (Path(hit.path).name, hit.read) == ("clip.mp4", "GATE B22")
        assert hit.best_s == pytest.approx(4.0, abs=0.3)
    found = index.explain("b22", folder / "clip.mp4", heat_map=False)
    assert found.time_s == pytest.approx(4.0, abs=0.3) and found.words == {"picture": ("b22",)}


def test_pictures_in_archives_are_read(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with tarfile.open((folder / "a.tar") if folder.mkdir() is None else "", "w") as tar:
        for number, text in enumerate(("ONE", "TWO")):
            tar.add(save_text(tmp_path / f"{number}.png", text), arcname=f"{number}.png")
    assert read(index, folder, GreyReader()).text_read == 2
    assert index.search("two", k=1)[0].path.endswith("a.tar/1.png")


def test_pages_keep_their_own_text(index: Index, tmp_path: Path) -> None:
    pages = [Image.fromarray(painted(text)) for text in ("ONE", "TWO", "THREE")]
    (tmp_path / "scans").mkdir()
    pages[0].save(tmp_path / "scans" / "scan.tif", save_all=True, append_images=pages[1:])
    read(index, tmp_path / "scans", GreyReader())
    assert [index.search(word, k=1)[0].segment for word in ("one", "two", "three")] == [0, 1, 2]


def test_a_question_is_about_its_best_frame_and_no_word_counts_twice(index: Index, tmp_path: Path) -> None:
    save_text(tmp_path / "named" / "gate.png", "GATE")
    save_text(tmp_path / "named" / "other.png", "")
    read(index, tmp_path / "named", GreyReader())
    best = index.search("gate", k=1)[0]
    before = best.parts["words"]
    with index._directory.writing() as writable, writable.catalogue.transaction():
        writable.catalogue.sql.execute("DELETE FROM segment_readings")
    assert index.search("gate", k=1)[0].parts["words"] == pytest.approx(before)


@given(st.text(max_size=30))
def test_letters_are_letters(text: str) -> None:
    letters = letters_of(text)
    assert letters == letters_of(f" {text}-")
    assert all(char.isalnum() or unicodedata.category(char)[0] == "M" for char in letters)
    sought = sought_letters(text)
    assert sought is None or (len(sought) >= 3 and sought == letters)


@given(st.text(min_size=1, max_size=12).filter(lambda text: text.strip()))
def test_any_question_can_be_asked_of_what_was_read(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read_text, "has_readings", lambda _: True)
        assert lines_with("RE16 TGK\nNO PARKING", [text]) in (
            [], ["RE16 TGK"], ["NO PARKING"], ["RE16 TGK", "NO PARKING"],
        )  # fmt: skip


def test_without_the_extra_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch, index: Index, signs: Path) -> None:
    monkeypatch.setattr(ocr, "has_text_reader", lambda: False)
    with pytest.raises(UsageError, match=re.escape(install_hint("ocr"))):
        index.add(signs, options=IngestOptions(ocr=True))


# Real text


@pytest.fixture(scope="module")
def reader() -> TextReader:
    if not has_text_reader():
        pytest.skip(f"needs the extra that reads text: {install_hint('ocr')}")
    return open_text_reader()


def drawn(*lines: str) -> Image.Image:
    image = Image.new("RGB", (640, 100 + 90 * len(lines)), (225, 225, 215))
    pen = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        pen.text((50, 50 + 90 * number), line, fill=(20, 30, 60), font=ImageFont.load_default(48))
    return image


def test_real_text_is_read(reader: TextReader) -> None:
    assert reader.read(drawn("RE16 TGK", "NO PARKING", "open 8 - 18")) == ["RE16 TGK", "NO PARKING", "open 8 - 18"]
    assert reader.read(Image.new("RGB", (300, 200), (90, 120, 90))) == []


def test_real_text_turned_round_is_read(reader: TextReader) -> None:
    assert set(reader.read(drawn("RE16 TGK").transpose(Image.Transpose.ROTATE_180))) == {"RE16 TGK"}


@pytest.mark.slow
def test_real_text_on_the_command_line(reader: TextReader, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    drawn("RE16 TGK").save(folder / "a.jpg")
    drawn("BAKERY").save(folder / "b.jpg")
    run("index", folder, home=tmp_path)
    made = json.loads(run("index", folder, "--ocr", "--json", home=tmp_path).stdout)
    assert (made["unchanged"], made["text_read"], made["text_unread"]) == (2, 2, [])
    hit = json.loads(run("query", "RE16", "--json", "-k", "1", home=tmp_path).stdout.splitlines()[0])
    assert Path(hit["path"]).name == "a.jpg" and hit["read"] == "RE16 TGK" and hit["relevance"] == 1
    assert "looked for in 2 of 2 images and videos, found in 2" in run("status", home=tmp_path).stdout
    assert "read in the picture: RE16 TGK" in run("query", "RE16", "--explain", "-k", "1", home=tmp_path).stdout
