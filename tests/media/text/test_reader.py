"""Texts: passages that the text encoder reads whole, rows of tables, encodings, sidecars; or a reason."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsearch.core.errors import MediaError
from mmsearch.core.types import MediaInfo
from mmsearch.media import DecodeOptions, decoder_for
from mmsearch.media.text import reader as text_module
from mmsearch.media.text.passages import cut, markdown_to_text, passages
from mmsearch.media.text.reader import TextDecoder

DECODER = TextDecoder()


class Counter:
    """A tokenizer of pieces of up to four characters, with a start and an end token; remembers how much it read."""

    def __init__(self) -> None:
        self.characters = 0

    def __call__(self, text: str) -> int:
        self.characters += len(text)
        return 2 + sum(-(-len(word) // 4) for word in text.split())


def options(max_tokens: int = 16, counter: Counter | None = None) -> DecodeOptions:
    return DecodeOptions(max_tokens=max_tokens, count_tokens=counter or Counter())


def decode(path: Path, given_options: DecodeOptions | None = None) -> tuple[MediaInfo, list[str]]:
    decoded = DECODER.decode(path, given_options or options(64))
    texts = []
    for segment in decoded.segments:
        assert segment.image is None
        assert segment.start_s is None
        assert segment.text is not None
        texts.append(segment.text)
    return (decoded.final_info() if decoded.final_info else decoded.info), texts


def write(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def test_a_paragraph_is_a_passage(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.txt", "One sentence. And a second.\nSame paragraph.\n\n \t\n\nAnother paragraph.\r\n\r\nLast."
    )
    assert decode(path)[1] == ["One sentence. And a second.\nSame paragraph.", "Another paragraph.", "Last."]


def test_headings_go_with_what_follows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "The Fens\n\nA walk in the rain.\n\nNo heading, only short.\n\nAt the end")
    assert decode(path)[1] == ["The Fens\nA walk in the rain.", "No heading, only short.", "At the end"]


def test_markdown_loses_its_marks(tmp_path: Path) -> None:
    source = """---
title: front matter
---
# A *big* day #

We **went** to [the sea](https://example.org/sea "x") with `code` and ![a gull](gull.png).
> quoted words.

Under
-----

<!-- hidden -->
```python
print("code")
```
- item one
- item two.
"""
    texts = decode(write(tmp_path / "a.md", source))[1]
    assert texts[0] == "A *big* day\nWe went to the sea with code and a gull.\nquoted words."
    assert texts[1].startswith("Under\n")
    assert 'print("code")' in texts[1]
    assert "front matter" not in "".join(texts)
    assert "hidden" not in "".join(texts)


def test_long_paragraphs_are_cut_at_sentences() -> None:
    text = "The cat sat. The dog ran far! Did it rain? Yes it did. All was well."
    found = list(passages(text, 10, Counter()))
    assert " ".join(found) == text
    assert all(Counter()(passage) <= 10 for passage in found)
    assert all(passage[-1] in ".!?" for passage in found)
    assert len(found) < 5


def test_sentences_in_other_scripts_are_cut_too() -> None:
    text = "今日は雨です。明日は晴れるでしょう。それから海へ行きます。" * 5
    found = list(passages(text, 12, Counter()))
    assert "".join(found) == text
    assert all(passage.endswith("。") for passage in found)


def test_abbreviated_numbers_do_not_end_sentences() -> None:
    assert list(passages("It is 3.5 km to www.example.org and back.", 30, Counter())) == [
        "It is 3.5 km to www.example.org and back."
    ]


def test_data_is_no_language(tmp_path: Path) -> None:
    path = write(tmp_path / "a.md", f"Before.\n\n![x](data:image/png;base64,{'QUJD' * 5000})\n\nAfter.")
    texts = decode(path)[1]
    assert texts[0] == "Before."
    assert texts[-1].endswith("After.")
    assert len(" ".join(texts)) < 100


TEXT = st.text(st.one_of(st.sampled_from(" \n.!?。ab"), st.characters(exclude_categories=("Cs", "Cc"))), max_size=600)


@given(text=TEXT, max_tokens=st.integers(3, 40))
def test_every_passage_fits_and_no_word_is_lost(text: str, max_tokens: int) -> None:
    counter = Counter()
    found = list(passages(text, max_tokens, counter))
    for passage in found:
        assert passage
        assert passage == passage.strip()
        assert counter(passage) <= max_tokens or len(passage) == 1
    assert re.sub(r"\s", "", "".join(found)) == re.sub(r"\s", "", text) or re.search(r"[!-~]{500}", text)


@given(text=TEXT)
def test_a_passage_that_fits_is_not_cut(text: str) -> None:
    text = text.strip()
    if text:
        assert list(cut(text, 10_000, Counter())) == [text]


@pytest.mark.parametrize("unit", ["word ", "A short sentence. ", "文", "x", "a.b,", "\n", ". "])
def test_cutting_takes_time_in_proportion_to_the_length(unit: str) -> None:
    """Characters given to the tokenizer, a measure that does not depend on the machine."""
    costs = []
    for times in (2_000, 20_000):
        counter = Counter()
        list(cut(unit * times, 64, counter))
        costs.append(counter.characters / (times * len(unit)))
    assert costs[1] <= costs[0] * 1.5 + 1
    assert costs[1] < 12


@given(TEXT)
def test_markdown_of_any_kind_is_survived(text: str) -> None:
    assert isinstance(markdown_to_text(text), str)


HOSTILE = {
    "open brackets": "[" * 50_000,
    "open pictures": "![](" * 20_000,
    "open emphasis": "**" * 50_000,
    "open comments": "<!--" * 30_000,
    "open code": "`a" * 40_000,
    "headings": "# " * 50_000,
    "a heading of spaces": "# " + " " * 60_000 + "x",
    "rules": "* " * 50_000 + "x",
    "full stops": "." * 60_000 + "x",
    "ellipses": "…" * 60_000 + "x",
    "quotes": 'a.""' * 30_000,
    "blank lines": "\n \t" * 40_000,
    "spaces": " " * 100_000 + "x",
    "a giant word": "é" * 100_000,
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_hostile_text_takes_no_time(kind: str) -> None:
    start = time.perf_counter()
    list(passages(markdown_to_text(HOSTILE[kind]), 64, Counter()))
    list(cut(HOSTILE[kind], 64, Counter()))
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("utf-8", "Grüße aus Łódź — 東京."),
        ("utf-8-sig", "Grüße aus Łódź — 東京."),
        ("utf-16", "Grüße aus Łódź — 東京."),
        ("utf-32", "Grüße aus Łódź — 東京."),
        ("cp1252", "Grüße aus Köln – “schön”."),
    ],
)
def test_encodings(tmp_path: Path, encoding: str, content: str) -> None:
    assert decode(write(tmp_path / "a.txt", content, encoding))[1] == [content]


def test_a_few_damaged_bytes_do_not_make_utf8_something_else(tmp_path: Path) -> None:
    data = ("Grüße über Flüsse und Täler. " * 20).encode()
    assert decode(write(tmp_path / "a.txt", data[:40] + b"\xff" + data[40:]))[1][0].count("ü") > 10


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b" \n\t\r\n ", "no text in it"),
        (b"\xef\xbb\xbf", "no text in it"),
        (bytes(range(256)) * 4, "not text"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not text"),
        ("Text without a mark.".encode("utf-16-le"), "byte order mark"),
        ("Привет, как дела сегодня".encode("cp1251"), "not text in a known encoding"),
    ],
)
@pytest.mark.parametrize("suffix", [".txt", ".md", ".csv", ".jsonl"])
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, reason: str, suffix: str) -> None:
    if suffix in {".csv", ".jsonl"} and reason == "no text in it":
        reason = "no caption column|no row with a caption"
    with pytest.raises(MediaError, match=reason):
        decode(write(tmp_path / f"a{suffix}", content))


def test_giants_and_missing_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "MAX_PROSE_BYTES", 1_000_000)
    path = write(tmp_path / "a.txt", b"word " * 300_000)
    with pytest.raises(MediaError, match=r"1\.5 MB of text, the limit is 1 MB; split the file"):
        DECODER.decode(path, options())
    for name in ("gone.txt", "gone.csv"):
        with pytest.raises(MediaError, match="cannot be read"):
            decode(tmp_path / name)


TABLES = {
    "plain": (".csv", 'file,caption\na.jpg,A red boat\nb.jpg,"Two dogs, one cat"\n'),
    "another column, other case": (".csv", 'Title,File\nA red boat,a.jpg\n"Two dogs, one cat",b.jpg\n'),
    "semicolons": (".csv", "id;Description\n1;A red boat\n2;Two dogs, one cat\n"),
    "tabs": (".tsv", "image\tcaption\na.jpg\tA red boat\nb.jpg\tTwo dogs, one cat\n"),
    "lines of JSON": (".jsonl", '{"text": "A red boat"}\n\n{"n": 1, "TEXT": "Two dogs, one cat"}\n'),
    "bare strings": (".ndjson", '"A red boat"\n"Two dogs, one cat"\n'),
    "line breaks inside": (".csv", 'sentence\nA red boat\n"Two dogs,\none cat"\n'),
    "with a mark": (".csv", '\ufeffcaption\nA red boat\n"Two dogs, one cat"\n'),
    "old line ends": (".csv", 'caption\r\nA red boat\r\n"Two dogs, one cat"\r\n'),
}


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_row_is_a_passage(tmp_path: Path, name: str) -> None:
    suffix, content = TABLES[name]
    info, texts = decode(write(tmp_path / f"a{suffix}", content))
    assert texts == ["A red boat", "Two dogs, one cat"]
    assert info.note is None


def test_the_best_named_column_wins(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "title,text,caption\nt,x,c\n")
    assert decode(path)[1] == ["c"]


def test_a_table_without_captions_is_refused_with_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="the header has name, age; expected one of caption"):
        decode(write(tmp_path / "a.csv", "name,age\nAnn,3\n"))
    with pytest.raises(MediaError, match="no row with a caption: expected JSON objects"):
        decode(write(tmp_path / "a.jsonl", '{"name": 1}\n[]\n5\n'))
    with pytest.raises(MediaError, match="no row with a caption"):
        decode(write(tmp_path / "a.csv", "caption\n"))


def test_bad_rows_are_survived_and_counted(tmp_path: Path) -> None:
    csv_rows = "n,caption\n1,good\n2\n3,\n4,also good\n" + "5," + "x" * 200_000 + '\n6,"last one"\n'
    info, texts = decode(write(tmp_path / "a.csv", csv_rows))
    assert texts == ["good", "also good", "last one"]
    assert info.note == "3 rows without a readable caption were left out"
    json_rows = ['{"text": "good"}', "{", "[" * 100_000, '{"text": 5}', "9" * 6000, '{"text": ["two", "parts"]}']
    info, texts = decode(write(tmp_path / "a.jsonl", "\n".join(json_rows)))
    assert texts == ["good", "two parts"]
    assert info.note is not None


def test_a_lone_quote_in_a_tsv_does_not_swallow_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'image\tcaption\na\t"Hello" she said\nb\t"unfinished\nc\tthird\n')
    assert decode(path)[1] == ['"Hello" she said', '"unfinished', "third"]


def test_lone_surrogates_can_be_stored(tmp_path: Path) -> None:
    texts = decode(write(tmp_path / "a.jsonl", json.dumps({"text": "a \ud83d b"})))[1]
    assert texts[0].encode("utf-8")


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.csv", "caption\n" + "".join(f"row {number}\n" for number in range(5000)))
    segments = DECODER.decode(path, options()).segments
    assert next(segments).text == "row 0"
    segments.close()  # type: ignore[attr-defined]
    monkeypatch.setattr(text_module, "MAX_ROWS", 10)
    info, texts = decode(path)
    assert len(texts) == 10
    assert info.note == "only the first 10 rows were read"


def test_every_text_suffix_belongs_to_the_text_decoder() -> None:
    for suffix in TextDecoder().suffixes:
        assert isinstance(decoder_for(Path("A" + suffix.upper())), TextDecoder)


CONTENT = st.one_of(
    st.binary(max_size=500),
    TEXT.map(str.encode),
    TEXT.map(lambda text: b"caption,x\n" + text.encode()),
    TEXT.map(lambda text: b"x\tcaption\n" + text.encode("utf-8", "replace")),
    st.dictionaries(st.sampled_from(["caption", "x"]), st.one_of(st.none(), st.text(max_size=50), st.integers())).map(
        lambda row: json.dumps(row).encode()
    ),
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=CONTENT, suffix=st.sampled_from(sorted(TextDecoder().suffixes)))
def test_anything_gives_passages_or_a_reason(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", data)
    try:
        _, texts = decode(path, options(8))
    except MediaError as error:
        assert str(error)
    else:
        assert texts
        assert all(Counter()(text) <= 8 or len(text) == 1 for text in texts)
