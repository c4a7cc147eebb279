"""Queries in other languages than English: their pieces, their vectors, and who reads what."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from mmsearch.models.encoders import open_encoder
from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS, BuiltinEncoder
from mmsearch.models.encoders.language_guess import is_english
from mmsearch.models.encoders.multilingual import means_something
from mmsearch.models.encoders.unigram import END, START, UNKNOWN, Unigram

GUESS = SHIPPED_WEIGHTS / "language_guess.npz"
TEXTS = (
    "一只黑狗在雪地里奔跑", "Ein Hund läuft durch den Schnee.", "deux enfants jouent au football", "Černý pes běží",
    "كلب أسود يجري في الثلج", "un perro corre por la playa", "黒い犬が走っている", "Чёрная собака на снегу",
    "검은 개가 눈 위를 달린다", "iPhone 手机 2024", "สุนัขสีดำ", "ﬁne Ⅷ ①",
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder() -> BuiltinEncoder:
    found = open_encoder("builtin")
    assert isinstance(found, BuiltinEncoder)
    return found


@pytest.fixture(scope="module")
def unigram() -> Unigram:
    return Unigram.read(SHIPPED_WEIGHTS / "multilingual_pieces.npz")


@pytest.fixture(scope="module")
def library(unigram: Unigram) -> Tokenizer:
    """The same pieces in the ``tokenizers`` library."""
    tokenizer = Tokenizer(models.Unigram(list(zip(unigram.pieces, unigram._scores, strict=True)), UNKNOWN, False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return tokenizer


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_those_of_the_library(unigram: Unigram, library: Tokenizer, text: str) -> None:
    assert unigram.encode(text, 96) == [START, *library.encode(text).ids, END]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_has_pieces_within_the_limit(unigram: Unigram, text: str) -> None:
    numbers = unigram.encode(text, 20)
    assert numbers[0] == START and numbers[-1] == END and len(numbers) <= 20
    assert all(0 <= number < len(unigram.pieces) for number in numbers)


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("a black dog runs through the snow", True), ("sunset at the beach", True), ("dog", True),
        ("Berlin", True), ("New York skyline", True), ("2024", True), ("🐱", True), ("", True),
        ("Ein schwarzer Hund im Schnee", False), ("deux chiens sur la plage", False), ("un perro negro", False),
        ("dvě děti si hrají", False), ("狗", False), ("собака", False), ("iPhone 手机", False), ("un cane nero", False),
    ],
)  # fmt: skip
def test_english_is_told_from_other_languages(text: str, english: bool) -> None:
    assert is_english(text, GUESS) is english


@pytest.mark.parametrize(
    ("words", "english"),
    [
        # Letters alone take the first for English and some of the last for foreign.
        ("persona tren banco mesa oiseau vache fourchette vogel schere", False),
        ("desk giraffe Yosemite pyjamas bus train pizza festival obelisk mitten", True),
    ],
)  # fmt: skip
def test_bare_words_are_told_by_where_they_are_frequent(words: str, english: bool) -> None:
    assert {word: is_english(word, GUESS) for word in words.split()} == dict.fromkeys(words.split(), english)


def test_a_word_in_any_language_lies_near_the_english_one(encoder: BuiltinEncoder) -> None:
    english = encoder.encode_texts(["dog", "train", "pizza", "mountain", "wedding"])
    for words in (
        ("狗", "火车", "披萨", "山", "婚礼"), ("Hund", "Zug", "Pizza", "Berg", "Hochzeit"),
        ("chien", "train", "pizza", "montagne", "mariage"), ("perro", "tren", "pizza", "montaña", "boda"),
        ("собака", "поезд", "пицца", "гора", "свадьба"), ("cane", "treno", "pizza", "montagna", "matrimonio"),
    ):  # fmt: skip
        cosines = encoder.encode_queries(words, "xx") @ english.T
        assert cosines.argmax(axis=1).tolist() == [0, 1, 2, 3, 4], words


def test_captions_lie_near_their_translation(encoder: BuiltinEncoder) -> None:
    english = encoder.encode_texts(["A black dog runs through the snow.", "Two children play football."])
    others = encoder.encode_queries(
        ["一只黑狗在雪地里奔跑。", "Zwei Kinder spielen Fußball.", "Un chien noir court dans la neige."]
    )
    assert (others @ english.T).argmax(axis=1).tolist() == [0, 1, 0]


def test_mixed_queries_are_rows_of_length_1_in_their_order(encoder: BuiltinEncoder) -> None:
    texts = ["a black dog", "狗", "a red car", "ein Auto auf der Straße", "🐱"]
    rows = encoder.encode_queries(texts)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    for text, row in zip(texts, rows, strict=True):
        np.testing.assert_allclose(encoder.encode_queries([text])[0], row, atol=1e-5)
    np.testing.assert_array_equal(rows[0], encoder.encode_texts(["a black dog"])[0])
    assert encoder.encode_queries([]).shape == (0, encoder.spec.dim)


def test_the_language_overrules_the_guess(encoder: BuiltinEncoder) -> None:
    [plain] = encoder.encode_queries(["gift"])
    [english] = encoder.encode_queries(["gift"], "en")
    [german] = encoder.encode_queries(["gift"], "de")
    np.testing.assert_array_equal(plain, english)
    assert float(english @ german) < 0.999


def test_what_no_encoder_reads_is_known(encoder: BuiltinEncoder) -> None:
    for text in ("🐱", "zzzqqxx", "…", "ߡߊ߲ߘߋ߲", "🐱 🐶!"):
        assert not encoder.reads_query(text), text
    for text in ("猫", "고양이", "собака", "tv", "cat", "🐱 cat", "Zürich", "2024", "x", "elefphant", "أسود"):
        assert encoder.reads_query(text), text


def test_words_mean_something_by_their_parts() -> None:
    assert means_something(["ab"]) and means_something(["a", None, "dog"]) and means_something(["", "狗"])
    assert not means_something([None]) and not means_something(["zz", "q"]) and not means_something(["!"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hund", 1), ("ein Foto von einem Hund", 1), ("une photo de chien", 1), ("una foto de un perro", 1), ("狗", 1),
        ("一张狗的照片", 1), ("Ein schwarzer Hund läuft durch den Schnee.", 4), ("Hund Hund hund", 1), ("!", 1),
        ("Собака бежит по снегу", 3), ("一只黑色的狗在草地上奔跑。", 4), ("", 1), ("Foto", 1),
    ],
)  # fmt: skip
def test_words_of_grammar_and_for_a_picture_tell_nothing(encoder: BuiltinEncoder, text: str, words: int) -> None:
    counted = encoder.telling_words(text, "xx")
    assert counted is not None and abs(counted - words) <= 0.5, counted


def test_words_of_english_are_not_counted_by_the_encoder(encoder: BuiltinEncoder) -> None:
    assert encoder.telling_words("a black dog") is None and encoder.telling_words("狗", "en") is None
    assert open_encoder("builtin+views").telling_words("狗") == 1


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_has_a_telling_word(encoder: BuiltinEncoder, text: str) -> None:
    counted = encoder.telling_words(text, "xx")
    assert counted is not None and 1 <= counted <= max(1, len(text) * 4)


def test_english_queries_open_nothing_multilingual() -> None:
    encoder = BuiltinEncoder()
    encoder.encode_queries(["a black dog", "sunset"])
    assert encoder.reads_query("a black dog")
    assert list(encoder._sessions) == ["text.onnx"]
    assert encoder._pieces is not None and "_unigram" not in vars(encoder._pieces)
