"""Very wide and tall pictures come in parts: nothing between the parts is lost, and each part is found."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch.api import Index
from mmsearch.media import DecodeOptions
from mmsearch.media.image.reader import ImageDecoder
from mmsearch.media.image.wide import MAX_PARTS, OVERLAP, WIDE, parts
from mmsearch.query.question import load_picture
from mmsearch.sources import hash_of
from mmsearch.store.local.directory import IndexDirectory
from tests.support.colours import COLOURS, ColourEncoder
from tests.support.old_index import OldDocument, write_old_index

STRIPE = ("red", "green", "blue", "yellow", "white")


def striped(tall: bool = False, side: int = 60) -> Image.Image:
    """A square of each colour, in a row or a column, with a little noise."""
    noise = np.random.default_rng(0).integers(-10, 10, (side, side, 3))
    squares = [np.clip(np.asarray(COLOURS[colour]) + noise, 0, 255) for colour in STRIPE]
    return Image.fromarray(np.concatenate(squares, axis=0 if tall else 1).astype(np.uint8))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000))
def test_parts_are_alike_overlap_and_show_everything(width: int, height: int) -> None:
    """The oracle marks every column (or row) that some part shows."""
    longer, shorter = max(width, height), min(width, height)
    along = np.arange(longer, dtype=np.int32)
    picture = Image.fromarray(np.broadcast_to(along[None, :] if width >= height else along[:, None], (height, width)))
    found = parts(picture)
    if longer <= WIDE * shorter:
        assert found == [picture]
        return
    assert 2 <= len(found) <= MAX_PARTS
    spans = [(int(np.asarray(part).min()), int(np.asarray(part).max()) + 1) for part in found]
    assert all(min(part.size) <= shorter for part in found)
    assert set().union(*(range(a, b) for a, b in spans)) == set(range(longer))
    lengths = [b - a for a, b in spans]
    assert len(set(lengths)) == 1
    overlaps = [a[1] - b[0] for a, b in itertools.pairwise(spans)]
    assert min(overlaps) >= OVERLAP * lengths[0] - 2
    if len(found) < MAX_PARTS:
        assert lengths[0] == shorter, "squares"


@pytest.mark.parametrize("tall", [False, True])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_every_part_of_a_panorama_is_found(index: Index, tmp_path: Path, name: str, tall: bool) -> None:
    (tmp_path / "photos").mkdir()
    striped(tall).save(tmp_path / "photos" / name)
    report = index.add(tmp_path / "photos")
    assert (report.indexed, report.segments) == (1, 7)
    order = [index.search(colour, k=5, words=False)[0] for colour in STRIPE]
    assert [order[n].score > 0.95 for n in (0, 2, 4)] == [True] * 3, "of these, one part shows nothing else"
    segments = [hit.segment for hit in order]
    assert segments == sorted(segments) and (segments[0], segments[2], segments[4]) == (0, 3, 6)
    assert len(index.search("red", k=5, words=False)) == 1, "one document, one hit"
    assert index.add(tmp_path / "photos").unchanged == 1
    assert index.verify().clean


def test_what_is_shown_of_a_panorama_is_the_whole(tmp_path: Path) -> None:
    striped().save(tmp_path / "a.png")
    assert load_picture(tmp_path / "a.png").size == (300, 60)


def test_asking_with_a_panorama_asks_with_all_of_it(index: Index, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for colour in ("red", "black"):
        Image.new("RGB", (40, 30), COLOURS[colour]).save(tmp_path / "photos" / f"{colour}.png")
    index.add(tmp_path / "photos")
    picture = Image.new("RGB", (400, 60), COLOURS["black"])
    picture.paste(COLOURS["red"], (0, 0, 60, 60))
    picture.save(tmp_path / "a.png")
    assert Path(index.search(image=tmp_path / "a.png", k=1)[0].path).name == "black.png"
    assert Path(index.search(image=picture, k=1)[0].path).name == "black.png"


def test_an_animation_stays_whole(tmp_path: Path) -> None:
    frames = [striped(), striped().rotate(180)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=500)
    found = list(ImageDecoder().decode(tmp_path / "a.gif", DecodeOptions(min_side=16)).segments)
    assert [segment.image.size for segment in found if segment.image] == [(300, 60)] * 2


def test_of_an_older_index_only_wide_pictures_are_read_again(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    pictures = {"wide": striped(), "usual": striped().crop((0, 0, 120, 60))}
    documents = []
    for name, picture in pictures.items():
        picture.save(tmp_path / "photos" / f"{name}.png")
        path = tmp_path / "photos" / f"{name}.png"
        vector = ColourEncoder().encode_images([picture])
        documents.append(OldDocument(path, vector, hash_of(path.read_bytes()), "image/1", *picture.size))
    write_old_index(tmp_path / "index", ColourEncoder().spec, tmp_path / "photos", documents, steps=6)
    encoder = ColourEncoder()
    with Index.open(tmp_path / "index", encoder=encoder) as index:
        report = index.add(tmp_path / "photos")
        assert (report.updated, report.unchanged, encoder.encoded_images) == (1, 1, 7)
    catalogue = IndexDirectory.open(tmp_path / "index").catalogue
    assert catalogue.sql.execute("SELECT count(*) FROM contents").fetchone() == (2,)
