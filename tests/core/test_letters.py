"""Words as the full text knows them, against plain substring search."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.core.letters import has_tokens, is_spaceless, part_of_name, tokens_of, words_of

SPACELESS = ["猫犬東京北天安门", "のをがカガー", "한국어사진을", "แมวภาพถ่าย", "ແມວຮູບ", "ឆ្មារូប", "ကြောင်ဓာတ်ပုံ"]


def has(text: str, phrase: str) -> bool:
    return has_tokens(tokens_of(text), tokens_of(phrase))


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("猫", "猫の写真.jpg"),
        ("写真", "猫の写真.jpg"),
        ("北京", "北京烤鸭店"),
        ("夜景", "2023-東京タワー夜景.jpg"),
        ("カメラ", "ﾃﾞｼﾞﾀﾙｶﾒﾗ"),
        ("แมว", "ภาพถ่ายแมว.jpg"),
        ("ແມວ", "ຮູບແມວ.jpg"),
        ("ឆ្មា", "រូបឆ្មា.jpg"),
        ("ကြောင်", "ကြောင်ပုံ.jpg"),
        ("사진", "가족사진을 보다"),
        ("사진", unicodedata.normalize("NFD", "가족사진을")),
        ("cafe", "Café.jpg"),
        ("café", "cafe\u0301.jpg"),
        ("CAFE", "ｃａｆｅ"),
        ("strasse", "Hauptstraße, Straße"),
        ("Fußball", "fussball"),
        ("lodz", "Łódź"),
        ("kobenhavn", "København"),
        ("naïve", "NAIVE"),
        ("IMG_2043", "IMG_2043-edit.jpg"),
        ("2043", "IMG2043.jpg"),
        ("img2043", "IMG-2043"),
        ("2023", "٢٠٢٣"),
        ("हिन्दी", "मेरी हिन्दी"),
        ("عربي", "عَرَبِيّ"),
        ("ελλας", "ΕΛΛΆΣ"),
    ],
)
def test_a_word_is_found_however_it_is_written(phrase: str, text: str) -> None:
    assert has(text, phrase)


@pytest.mark.parametrize(
    ("phrase", "text"),
    [("カラス", "ガラス"), ("猫犬", "猫と犬"), ("art", "START"), ("17", "2017"), ("เกด", "เกิด"), ("", "x"), ("!", "!")],
)
def test_another_word_is_not(phrase: str, text: str) -> None:
    assert not has(text, phrase)


def plain(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKC", text) if not char.isspace())


@given(st.data())
def test_scripts_without_spaces_are_searched_as_substrings(data: st.DataObject) -> None:
    letters = data.draw(st.sampled_from(SPACELESS))
    runs = st.text(letters, max_size=6)
    text, phrase = data.draw(runs) + data.draw(st.sampled_from(["", " ", "-"])) + data.draw(runs), data.draw(runs)
    assert has(text, phrase) == (bool(phrase) and plain(phrase) in plain(text.replace("-", "")))


@given(st.text(max_size=40))
def test_any_text_gives_tokens_that_stay_as_they_are(text: str) -> None:
    tokens = tokens_of(text)
    assert all(token and " " not in token and '"' not in token and "\0" not in token for token in tokens)
    assert tokens_of(" ".join(tokens)) == tokens == [token for word in words_of(text) for token in tokens_of(word)]
    assert has_tokens(tokens, tokens) == bool(tokens)


def test_what_is_looked_for_inside_of_names() -> None:
    assert [part_of_name(word) for word in ("2043", "IMG_20", "birthday", "x1v", "Geburtstagsfeier")] == [
        "2043", "img 20", "birthday", "x1v", "geburtstagsfeier",
    ]  # fmt: skip
    assert [part_of_name(word) for word in ("art", "17", "blue harbour", "写真です", "!", "")] == [None] * 6
    assert is_spaceless("写真") and not is_spaceless("photo")
