"""Words in names, captions, passages and pictures, in any script and way to write them, through the whole line."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from mmsearch.api import Index
from mmsearch.query.fuse import content_words, find_evidence, shared_words
from tests.support.colours import COLOURS, ColourEncoder, save_colour

NAMES = [
    "猫の写真", "2023-東京タワー夜景", "한국어사진을", "ภาพถ่ายแมว", "ຮູບໝາ", "រូបឆ្កែ", "ခွေးပုံ", "Hauptstraße",
    "IMG_2043-edit", "IMG2044", "DSC03051", "20180312_101500", "schlossgarten", "ＰＡＲＩＳ",
]  # fmt: skip
DECOMPOSED = unicodedata.normalize("NFD", "Café-über")
CAPTIONS = {
    "one": "在天安门广场看升旗仪式",
    "two": "Ein Schäferhund am See",
    "three": "강아지가 공원에서",
    "four": "หมาวิ่งเล่น",
}
FOUND = """
    猫: 猫の写真 | 写真: 猫の写真 | "写真": 猫の写真 | 東京: 2023-東京タワー夜景 | 夜景: 2023-東京タワー夜景
    "タワー": 2023-東京タワー夜景 | 사진: 한국어사진을 | "한국": 한국어사진을 | แมว: ภาพถ่ายแมว | ໝາ: ຮູບໝາ | "ឆ្កែ": រូបឆ្កែ
    ခွေး: ခွေးပုံ | cafe: Café-über | "CAFÉ": Café-über | uber: Café-über | hauptstrasse: Hauptstraße
    "HAUPTSTRASSE": Hauptstraße | IMG_2043: IMG_2043-edit | 2043: IMG_2043-edit | "IMG_2043" edit: IMG_2043-edit
    2044: IMG2044 | img_2044: IMG2044 | 3051: DSC03051 | "2018": 20180312_101500 | 2018: 20180312_101500
    garten: schlossgarten | paris: ＰＡＲＩＳ | 天安门: one | "广场": one | schaferhund: two | "am see": two
    강아지: three |    "공원": three | หมา: four | "วิ่ง": four
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("words")
    for number, name in enumerate([*NAMES, DECOMPOSED, *CAPTIONS]):
        save_colour(folder / "photos" / f"{name}.png", list(COLOURS)[number % 8], seed=number)
    for name, caption in CAPTIONS.items():
        (folder / "photos" / f"{name}.txt").write_text(caption)
    for name, text in {"diary": "昨天我们去吃北京烤鸭。", "notes": "วันนี้ไปตลาดน้ำ"}.items():
        (folder / "photos" / f"{name}.md").write_text(text)
    with Index.open(folder / "index", create=True, encoder=ColourEncoder()) as opened:
        opened.add(folder / "photos")
        yield opened


@pytest.mark.parametrize(
    ("query", "name"), [each.strip().split(": ") for each in FOUND.replace("\n", "|").split("|") if each.strip()]
)
def test_the_file_with_the_word_comes_first(index: Index, query: str, name: str) -> None:
    best, *others = index.search(query, k=3)
    assert unicodedata.normalize("NFC", Path(best.path).stem) == name
    assert best.parts["words"] > 0 and all(hit.parts["words"] < best.parts["words"] for hit in others)
    assert best.relevance == pytest.approx(1, abs=0.01)
    if '"' in query:
        assert not others, "a phrase lets only those through that have it"


@pytest.mark.parametrize("query", ["北京", '"烤鸭"', "ตลาด", '"น้ำ"'])
def test_passages_are_found_by_a_word_inside(index: Index, query: str) -> None:
    best = index.search(f"{query} type:text", k=1)[0]
    assert best.parts["words"] > 0 and shared_words(content_words([query]), best.text or "")


def test_a_sentence_without_spaces_is_found_by_its_words(index: Index) -> None:
    """Nobody has the whole run, but pieces of it."""
    assert Path(index.search("东京的夜景", k=1)[0].path).stem == "2023-東京タワー夜景"
    store = index._session.store()
    assert find_evidence(store, ["北京的烤鸭"]).words == ("北京", "烤鸭")
    assert find_evidence(store, ["鯨が泳ぐ海"]).words == ("鯨が泳ぐ海",)


def test_whole_words_count_before_parts_of_names(index: Index) -> None:
    held = find_evidence(index._session.store(), ["2043"]).shares
    assert len(held) == 1
    assert not find_evidence(index._session.store(), ["gart"]).shares, "four letters are a part of too many words"
    assert not find_evidence(index._session.store(), ["03"]).shares


def test_what_words_say_is_explained(index: Index) -> None:
    hit = index.search("猫 写真", k=1)[0]
    assert index.explain("猫 写真", hit.path).words == {"path": ("猫", "写真")}
    best = index.search("cafes", k=1)[0]
    assert index.explain("cafes", best.path).words == {"path": ("cafes",)}


def test_words_that_must_not_stand_there(index: Index) -> None:
    paths = [hit.path for hit in index.search("red -猫", k=99)]
    assert paths and not any("猫" in path for path in paths)
