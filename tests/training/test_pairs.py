"""Pairs in each form they come in; broken rows are listed, and never end the reading."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch.api import Index
from mmsearch.core.errors import UsageError
from mmsearch.training.pair_sources import read_pairs
from mmsearch.training.pairs import ImageSource, Pairs, without_unreadable
from tests.support.colours import ColourEncoder, save_colour


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, colour in enumerate(["red", "green", "blue"]):
        save_colour(tmp_path / "images" / f"{colour}.png", colour, seed=number)
    return tmp_path


def captions(pairs: Pairs) -> dict[str, tuple[str, ...]]:
    return {image.path.name: texts for image, texts in zip(pairs.images, pairs.captions, strict=True)}


@pytest.mark.parametrize("name", ["pairs.tsv", "pairs.csv", "pairs.jsonl"])
def test_tables_gather_the_captions_of_an_image(folder: Path, name: str) -> None:
    rows = [("red.png", 'a "red" one'), ("green.png", "green"), ("red.png", "more red"), ("red.png", "more red")]
    if name.endswith("jsonl"):
        text = "\n".join(json.dumps({"image": image, "caption": caption}) for image, caption in rows)
    elif name.endswith("csv"):
        text = "\n".join(["filepath,title", *(f'{i},"{c.replace(chr(34), chr(34) * 2)}"' for i, c in rows)])
    else:
        text = "\n".join(["caption\tid\timage", *(f"{caption}\t7\t{image}" for image, caption in rows)])
    (folder / name).write_text(text)
    found = captions(read_pairs(folder / name))
    assert found == {"red.png": ('a "red" one', "more red"), "green.png": ("green",)}


def test_a_list_of_captions_is_several(folder: Path) -> None:
    (folder / "p.jsonl").write_text(json.dumps({"file_name": "blue.png", "captions": ["one", " ", "two"]}))
    assert captions(read_pairs(folder / "p.jsonl")) == {"blue.png": ("one", "two")}


def test_every_broken_row_is_listed_with_its_line(folder: Path) -> None:
    lines = ["image\tcaption", "red.png\tgood", "gone.png\tx", "red.png\t", "only one cell", "\tno name", "a\0b\tx"]
    (folder / "p.tsv").write_text("\n".join(lines))
    pairs = read_pairs(folder / "p.tsv")
    reasons = {int(skip.path.rsplit(":", 1)[1]): skip.reason for skip in pairs.refused}
    assert list(reasons) == [3, 4, 5, 6, 7] and len(pairs) == 1
    assert "gone.png" in reasons[3] and "empty" in reasons[4] and "columns" in reasons[5]


def test_sidecars(folder: Path) -> None:
    images = folder / "images"
    (images / "red.txt").write_text("first caption\n\nsecond caption\n")
    (images / "green.json").write_text('{"description": "in json"}')
    pairs = read_pairs(images)
    assert captions(pairs) == {"red.png": ("first caption", "second caption"), "green.png": ("in json",)}
    assert [Path(skip.path).name for skip in pairs.refused] == ["blue.png"]


def test_webdataset(folder: Path) -> None:
    shard = folder / "shards" / "00.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as tar:

        def put(name: str, content: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))

        for colour in ("red", "green", "blue"):
            put(f"a/{colour}.png", (folder / "images" / f"{colour}.png").read_bytes())
        put("a/red.txt", b"text wins")
        put("a/red.json", b'{"caption": "metadata"}')
        put("a/green.json", b'{"caption": "from json"}')
        put("a/lonely.txt", b"no image")
    for source in (shard, shard.parent):
        pairs = read_pairs(source)
        found = {image.member: texts for image, texts in zip(pairs.images, pairs.captions, strict=True)}
        assert found == {"a/red.png": ("text wins",), "a/green.png": ("from json",)}
        assert {skip.path.rsplit(":", 1)[1] for skip in pairs.refused} == {"a/blue", "a/lonely"}
        direct = Image.open(folder / "images" / "red.png").convert("RGB")
        assert pairs.images[0].read().tobytes() == direct.tobytes()


def test_a_damaged_tar_is_refused_as_a_whole(folder: Path) -> None:
    (folder / "bad.tar").write_bytes(b"not a tar at all" * 100)
    with pytest.raises(UsageError, match="not a readable tar"):
        read_pairs(folder / "bad.tar")


def test_an_index_gives_what_photos_say_of_themselves(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name, text in (("one.jpg", "a boat at dawn"), ("two.jpg", None)):
        exif = Image.Exif()
        if text:
            exif[270] = text
        Image.new("RGB", (32, 24), "navy" if text else "white").save(tmp_path / "photos" / name, exif=exif)
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add([tmp_path / "photos"])
    assert captions(read_pairs(tmp_path / "index")) == {"one.jpg": ("a boat at dawn",)}
    (tmp_path / "photos" / "two.txt").write_text("what lies beside it")
    (tmp_path / "photos" / "one.txt").write_text("a boat")
    with Index.open(tmp_path / "index", encoder=ColourEncoder()) as index:
        index.add([tmp_path / "photos"])
    found = captions(read_pairs(tmp_path / "index"))
    assert found == {"one.jpg": ("a boat", "a boat at dawn"), "two.jpg": ("what lies beside it",)}
    (tmp_path / "photos" / "one.jpg").unlink()
    assert "gone" in read_pairs(tmp_path / "index").refused[0].reason


def test_unreadable_images_are_moved_to_the_refused(folder: Path) -> None:
    whole = (folder / "images" / "red.png").read_bytes()
    (folder / "images" / "torn.png").write_bytes(whole[: len(whole) // 2])
    lines = ["image\tcaption", "red.png\tx", "torn.png\ty", "green.png\tz"]
    (folder / "p.tsv").write_text("\n".join(lines))
    seen: list[tuple[int, int]] = []
    pairs = without_unreadable(read_pairs(folder / "p.tsv"), lambda done, total: seen.append((done, total)))
    assert [image.path.name for image in pairs.images] == ["red.png", "green.png"]
    assert [Path(skip.path).name for skip in pairs.refused] == ["torn.png"] and "truncated" in pairs.refused[0].reason
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_nothing_usable_is_an_error_that_says_why(folder: Path) -> None:
    (folder / "p.tsv").write_text("image\tcaption\ngone.png\tx\n")
    with pytest.raises(UsageError, match=r"no usable pair.*gone\.png"):
        read_pairs(folder / "p.tsv")
    (folder / "q.tsv").write_text("a\tb\nred.png\tx\n")
    with pytest.raises(UsageError, match="no image column"):
        read_pairs(folder / "q.tsv")
    with pytest.raises(UsageError, match="there is no"):
        read_pairs(folder / "missing.tsv")


TABLES = st.text(max_size=200).map(lambda text: ("image\tcaption\n" + text).encode("utf-8", "surrogatepass"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300) | TABLES, suffix=st.sampled_from([".tsv", ".csv", ".jsonl", ".tar"]))
def test_any_bytes_end_in_pairs_or_a_usage_error(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_bytes(content)
    try:
        assert len(read_pairs(path)) > 0
    except UsageError as error:
        assert str(path) in str(error)


@given(st.sets(st.text("abcdef", min_size=1, max_size=6), min_size=2, max_size=40), st.floats(0.05, 0.95))
def test_an_image_stays_on_its_side_when_the_set_grows(names: set[str], fraction: float) -> None:
    def held(chosen: list[str]) -> tuple[set[str], set[str]]:
        pairs = Pairs(tuple(ImageSource(Path(name)) for name in chosen), (("x",),) * len(chosen))
        sides = pairs.split(fraction)
        assert all(len(side) for side in sides) and sum(map(len, sides)) == len(chosen)
        return tuple({image.path.name for image in side.images} for side in sides)  # type: ignore[return-value]

    ordered = sorted(names)
    learning, judging = held(ordered)
    assert not learning & judging
    more = [*ordered, *(f"{name}-more" for name in ordered)]
    if 1 < len(judging) < len(ordered) - 1:  # where no side had to be given a first image
        assert judging <= held(more)[1]
