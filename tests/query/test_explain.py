"""Explanations, heat maps, reranking; contact sheets and pictures in the terminal."""

from __future__ import annotations

import base64
import io
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmsearch.api import Index
from mmsearch.cli.pictures import encode_picture, picture_protocol
from mmsearch.cli.sheet import draw_sheet
from mmsearch.core.errors import UsageError
from mmsearch.core.types import Hit
from mmsearch.models.rerankers.base import Reranker, RerankerSpec
from mmsearch.query.heat import GRID, heat_of, overlay, places_lost, stretched, windows, windows_map
from mmsearch.query.options import SearchOptions
from mmsearch.query.question import load_picture
from mmsearch.query.rerank import CAUTION, Reranking, RerankRequest, rerank, reranked_or_not
from mmsearch.query.retrieve import Candidate
from mmsearch.store.base import Segment
from mmsearch.store.local.files.tokens import TokenFile
from mmsearch.store.local.reranker_cache import TokensAtHand
from tests.support.colours import COLOURS, ColourEncoder, save_colour


def patchwork(where: tuple[int, int], colour: str = "red") -> Image.Image:
    """A blue picture of 4 × 4 fields, one of which has another colour."""
    pixels = np.full((160, 160, 3), COLOURS["blue"], dtype=np.uint8)
    row, column = where
    pixels[40 * row : 40 * row + 40, 40 * column : 40 * column + 40] = COLOURS[colour]
    return Image.fromarray(pixels)


@pytest.mark.parametrize("where", [(0, 0), (0, 3), (1, 2), (2, 1), (3, 3), (3, 0)])
def test_the_heat_map_is_hottest_where_the_thing_is(where: tuple[int, int]) -> None:
    encoder = ColourEncoder()
    heat = windows_map(encoder, patchwork(where), encoder.encode_texts(["red"])[0])
    assert heat.shape == (GRID, GRID) and heat.dtype == np.float32
    assert heat.min() == 0 and heat.max() == 1
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    assert (int(row) * 4 // GRID, int(column) * 4 // GRID) == where
    picture = overlay(patchwork(where), heat)
    assert picture.size == (160, 160) and np.asarray(picture).std() > 10


def test_a_picture_of_one_pixel_has_a_map_too() -> None:
    encoder = ColourEncoder()
    heat = windows_map(encoder, Image.new("RGB", (1, 1), (9, 9, 9)), encoder.encode_texts(["red"])[0])
    assert np.isfinite(heat).all()


class Places(Reranker):
    """Looks at a grid of mean colours, and says how red the reddest place is, as attention to a word would."""

    def __init__(self, side: int = 6) -> None:
        self.spec, self.side = RerankerSpec("places", "1" * 64, (side * side, 3)), side

    def prepare_image(self, image: Image.Image) -> np.ndarray:
        small = image.resize((self.side, self.side), Image.Resampling.BOX)
        return np.asarray(small, dtype=np.float32).reshape(-1, 3) / 255

    def tokens_of_prepared(self, inputs: np.ndarray) -> np.ndarray:
        return inputs.astype(np.float16)

    def score_tokens(self, text: str, tokens: np.ndarray) -> np.ndarray:
        wanted = np.array(COLOURS[text], dtype=np.float32) / 255
        return -np.linalg.norm(tokens.astype(np.float32) - wanted, axis=2).min(axis=1)


@pytest.mark.parametrize("where", [(0, 0), (0, 3), (1, 2), (2, 1), (3, 3), (3, 0)])
def test_a_reranker_shows_the_place_that_it_needs(where: tuple[int, int]) -> None:
    encoder, vector = ColourEncoder(), ColourEncoder().encode_texts(["red"])[0]
    heat = heat_of(encoder, patchwork(where), vector, "red", Places(4))
    assert heat.source == "reranker" and heat.map.shape == (GRID, GRID)
    row, column = where
    down, across = np.unravel_index(int(heat.map.argmax()), heat.map.shape)
    assert max(abs(int(down) * 4 // GRID - row), abs(int(across) * 4 // GRID - column)) <= 1  # neighbours go with it
    lost = places_lost(Places(4), patchwork(where), "red")
    assert lost is not None and set(zip(*np.nonzero(lost > 0.05), strict=True)) == {
        (i, j) for i in range(4) for j in range(4) if abs(i - row) <= 1 and abs(j - column) <= 1
    }


def test_what_has_no_places_leaves_the_map_to_the_encoder() -> None:
    encoder, vector = ColourEncoder(), ColourEncoder().encode_texts(["red"])[0]
    heat = heat_of(encoder, patchwork((0, 3)), vector, "red", NumberReranker())
    assert heat.source == "windows"
    np.testing.assert_array_equal(heat.map, windows_map(encoder, patchwork((0, 3)), vector))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 7), (3, 40)])
def test_a_grid_of_any_size_is_stretched_over_the_picture(shape: tuple[int, int]) -> None:
    cells = np.zeros(shape, dtype=np.float32)
    cells[-1, 0] = 1.0
    heat = stretched(cells)
    assert heat.shape == (GRID, GRID) and np.isfinite(heat).all()
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    if cells.size > 1:
        assert heat.max() == 1 and (row * shape[0] // GRID, column * shape[1] // GRID) == (shape[0] - 1, 0)


def test_windows_cover_the_picture() -> None:
    boxes = windows(0.3, 4)
    assert len(boxes) == 16 and boxes[0][:2] == (0, 0) and boxes[-1][2:] == pytest.approx((1, 1))


@pytest.fixture
def opened(tmp_path: Path) -> Index:
    for number in range(24):
        save_colour(tmp_path / "photos" / "lisbon" / f"x{number}.png", list(COLOURS)[number % 8], seed=number)
    patchwork((0, 3)).save(tmp_path / "photos" / "patch.png")
    (tmp_path / "photos" / "diary.md").write_text("A red tram in Lisbon.\n")
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(tmp_path / "photos")
        yield index


def test_the_parts_of_an_explanation_are_those_of_the_hit(opened: Index, tmp_path: Path) -> None:
    for question in ("red lisbon", "red", 'blue "lisbon" -green'):
        for hit in opened.search(question, k=30):
            found = opened.explain(question, hit.path, heat_map=False)
            assert dict(found.parts) == pytest.approx(dict(hit.parts), abs=1e-5)
            assert found.score == pytest.approx(sum(hit.parts.values()), abs=1e-5)
            assert found.relevance == pytest.approx(hit.relevance, abs=1e-5) and found.allowed and not found.excluded
    found = opened.explain("red lisbon", tmp_path / "photos" / "lisbon" / "x0.png")
    assert found.words == {"path": ("lisbon",)} and found.heat is not None
    text = opened.explain("tram type:text", tmp_path / "photos" / "diary.md")
    assert text.heat is None and text.words == {"text": ("tram",)}
    patch = opened.explain("red", tmp_path / "photos" / "patch.png", reranker=Places())
    assert patch.heat_source == "reranker" and text.heat_source is None
    assert int(patch.heat.argmax()) % GRID > GRID / 2 and int(patch.heat.argmax()) // GRID < GRID / 2
    patch = opened.explain("red", tmp_path / "photos" / "patch.png")
    assert patch.heat_source == "windows"
    assert int(patch.heat.argmax()) % GRID > GRID / 2 and int(patch.heat.argmax()) // GRID < GRID / 2


def test_an_explanation_says_why_not(opened: Index, tmp_path: Path) -> None:
    photo = tmp_path / "photos" / "lisbon" / "x0.png"
    assert not opened.explain("red path:other/**", photo, heat_map=False).allowed
    with pytest.raises(UsageError, match="is not in the index"):
        opened.explain("red", tmp_path / "photos" / "none.png")
    with pytest.raises(UsageError, match="only filters"):
        opened.explain("path:*", photo)


class NumberReranker(Reranker):
    """Prefers the pictures with the most red in them, after a pause for each."""

    def __init__(self, pause: float = 0.0) -> None:
        self.spec = RerankerSpec("red", "0" * 64, (1, 1), mix=100.0)
        self.pause, self.seen = pause, 0

    def prepare_image(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image)[..., :1].mean(axis=(0, 1), keepdims=True)[0] / 255

    def tokens_of_prepared(self, inputs: np.ndarray) -> np.ndarray:
        time.sleep(self.pause * len(inputs))
        self.seen += len(inputs)
        return inputs.astype(np.float16)

    def score_tokens(self, text: str, tokens: np.ndarray) -> np.ndarray:
        return tokens[:, 0, 0].astype(np.float32)


def candidates(count: int, modality: str = "image") -> list[Candidate]:
    segments = [Segment(i, i, f"/r/{i}.png", modality, 0) for i in range(count)]  # type: ignore[arg-type]
    return [Candidate(one, 0.9 - 0.001 * i, 0.0) for i, one in enumerate(segments)]


def reddish(one: Candidate) -> Image.Image:
    return Image.new("RGB", (4, 4), (one.segment.id, 0, 0))


def request(reranker: Reranker, depth: int, budget: float | None = None, **rest: Any) -> RerankRequest:
    return RerankRequest(Reranking(reranker, rest.pop("note", lambda _: None)), depth, budget,
                         rest.pop("picture_of", reddish), **rest)  # fmt: skip


def test_a_reranker_orders_the_first_and_leaves_the_rest() -> None:
    ranked = rerank(request(NumberReranker(), 10), "red", candidates(30))
    assert [one.segment.id for one in ranked] == [*range(9, -1, -1), *range(10, 30)]
    totals = [one.total for one in ranked[:10]]
    assert totals == sorted(totals, reverse=True)
    assert all(sum(one.parts.values()) == pytest.approx(one.total) for one in ranked)


@pytest.mark.parametrize(("budget", "pause"), [(0.3, 0.02), (0.5, 0.1), (0.0, 0.01), (0.05, 0.2)])
def test_a_reranker_keeps_its_budget(budget: float, pause: float) -> None:
    reranker, notes = NumberReranker(pause), []
    reranker.cost()
    reranker.seen = 0
    ticks = Ticks(reranker)
    ranked = rerank(request(reranker, 60, budget, clock=ticks, note=notes.append), "red", candidates(60))
    assert ticks() <= 1.1 * budget
    assert sorted(one.segment.id for one in ranked) == list(range(60))
    assert reranker.seen < 60 and bool(notes) == (budget < 2 * CAUTION * pause)
    assert reranker.seen >= 0.4 * budget / pause - 1, "and what there is of it is used"


class Ticks:
    """A clock that stands still except while a `NumberReranker` looks at pictures, whatever else the machine does."""

    def __init__(self, reranker: NumberReranker) -> None:
        self.reranker, self.start = reranker, reranker.seen

    def __call__(self) -> float:
        return (self.reranker.seen - self.start) * self.reranker.pause


def test_what_a_reranker_cannot_see_keeps_its_score() -> None:
    def broken(one: Candidate) -> Image.Image:
        if one.segment.id % 2:
            raise UsageError("gone")
        return reddish(one)

    ranked = rerank(request(NumberReranker(), 6, picture_of=broken), "red", candidates(6))
    rows = [one.segment.id for one in ranked]
    assert [row for row in rows if row % 2 == 0] == [4, 2, 0] and [row for row in rows if row % 2] == [1, 3, 5]
    assert all(one.rerank == 0 for one in ranked if one.segment.id % 2)
    assert [one.total for one in ranked] == sorted((one.total for one in ranked), reverse=True)
    texts = candidates(5, "text")
    assert rerank(request(NumberReranker(), 5), "red", texts) == texts


def test_kept_tokens_are_read_instead_of_pictures(tmp_path: Path) -> None:
    reranker, ranked = NumberReranker(), candidates(20)
    file = TokenFile(tmp_path / "tokens.i8", (1, 1))
    file.append(reranker.image_tokens([reddish(one) for one in ranked[::2]]), at=0)
    reranker.seen = 0
    kept = TokensAtHand({row: row // 2 for row in range(0, 20, 2)}, file, 10)
    found = rerank(request(reranker, 20, kept=kept), "red", ranked)
    assert reranker.seen == 10
    assert [one.segment.id for one in found] == [one.segment.id for one in rerank(
        request(NumberReranker(), 20), "red", ranked)]  # fmt: skip


def test_of_a_file_of_several_pages_the_right_one_is_looked_at(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (30, 30), COLOURS[name]) for name in ("red", "green", "blue")]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    for number, page in enumerate(pages):
        found = load_picture(tmp_path / "pages.tif", page=number)
        assert np.array_equal(np.asarray(found), np.asarray(page))


def test_a_reranker_that_fails_leaves_the_first_stage() -> None:
    class Broken(NumberReranker):
        def score_tokens(self, text: str, tokens: np.ndarray) -> np.ndarray:
            raise RuntimeError("out of memory")

    notes: list[str] = []
    ranked = candidates(5)
    assert reranked_or_not(request(Broken(), 5, note=notes.append), "red", ranked) == ranked
    assert notes == ["not reranked: RuntimeError: out of memory"]


def test_a_reranker_is_opened_by_name_or_the_answer_stays(opened: Index, tmp_path: Path) -> None:
    notes: list[str] = []
    plain = opened.search("blue", k=5)
    assert opened.search("blue", k=5, reranker="builtin", note=notes.append) == plain
    assert opened.search_many(["blue"], options=SearchOptions(k=5, reranker="no such one"), note=notes.append) == [
        plain
    ]
    assert "colours has no reranker of its own" in notes[0] and "no reranker 'no such one'" in notes[1]
    picture = opened.search(
        "blue", image=tmp_path / "photos" / "patch.png", reranker=NumberReranker(), note=notes.append
    )
    assert picture and "has pictures in it" in notes[2]


def test_reranked_hits_in_an_index(opened: Index) -> None:
    reranker = NumberReranker()
    hits = opened.search("blue", k=5, reranker=reranker)
    assert reranker.seen == 25 and hits[0].parts["rerank"] != 0
    assert Path(hits[0].path).stem in {f"x{i}" for i in range(24) if i % 8 in (3, 5, 6)}  # yellow, white, orange


def a_hit(path: Path, rank: int = 1) -> Hit:
    return Hit(rank, 0.5, str(path), "image", 0, relevance=0.7)


def test_a_contact_sheet_shows_every_hit(tmp_path: Path) -> None:
    hits = [a_hit(save_colour(tmp_path / f"{c}.png", c, (300, 200)), i) for i, c in enumerate(COLOURS, 1)]
    hits.append(a_hit(tmp_path / "gone.png", 9))
    draw_sheet(hits, tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    for colour in COLOURS.values():
        assert (np.abs(pixels - np.array(colour)).max(axis=-1) < 16).sum() > 5000
    with pytest.raises(UsageError, match="cannot be written"):
        draw_sheet(hits, tmp_path / "nowhere" / "sheet.png")


def test_kitty_and_iterm_pictures_carry_the_png() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    kitty = encode_picture(picture, "kitty")
    chunks = re.findall(r"\033_G(?:a=T,f=100,)?m=([01]);([^\033]*)\033\\", kitty)
    assert [more for more, _ in chunks] == ["1"] * (len(chunks) - 1) + ["0"] and len(chunks) > 1
    iterm = re.fullmatch(r"\033\]1337;File=inline=1;size=(\d+):(.*)\a", encode_picture(picture, "iterm2"))
    assert iterm
    for data in ("".join(chunk for _, chunk in chunks), iterm[2]):
        shown = Image.open(io.BytesIO(base64.standard_b64decode(data)))
        assert np.array_equal(np.asarray(shown), noise)


def test_pipes_get_no_pictures(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITTY_WINDOW_ID", "1")
    assert picture_protocol() is None and picture_protocol(forced=True) is None
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert picture_protocol() == "kitty"
    for name in ("KITTY_WINDOW_ID", "TERM_PROGRAM", "LC_TERMINAL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert picture_protocol() is None and picture_protocol(forced=True) == "iterm2"
