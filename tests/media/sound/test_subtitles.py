"""Files of subtitles: formats × encodings × damage, exact times, names and languages."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.core.errors import MediaError
from mmsearch.media.sound.passages import Cue
from mmsearch.media.sound.subtitles import cleaned, decoded, language_of_name, normal_language, read_subtitles
from mmsearch.sources import WalkRules, subtitles_beside, walk

TEXTS = {
    "en": ["Good morning, everybody.", "The train to the harbour leaves at nine.", "Don’t forget your umbrella!"],
    "de": ["Guten Morgen, schöne Grüße aus Köln.", "Der Zug fährt über die Brücke.", "Bitte nicht vergessen: Straße!"],
    "pl": ["Dzień dobry, żółta łódka płynie.", "Pociąg odjeżdża o dziewiątej.", "Nie zapomnij parasola, proszę cię."],
    "ru": ["Доброе утро, дорогие друзья.", "Поезд отправляется в девять часов.", "Не забудьте свой зонтик!"],
    "el": ["Καλημέρα σε όλους σας.", "Το τρένο φεύγει στις εννέα το πρωί.", "Μην ξεχάσετε την ομπρέλα σας!"],
    "zh": ["大家早上好，欢迎来到这里。", "开往港口的火车九点出发。", "请不要忘记带上你的雨伞。"],
    "ja": ["皆さん、おはようございます。", "港へ行く電車は九時に出発します。", "傘を忘れないでくださいね。"],
}
ENCODINGS = {
    "en": ("utf-8", "utf-8-sig", "utf-16", "cp1252"),
    "de": ("utf-8", "utf-16", "utf-16-le", "cp1252"),
    "pl": ("utf-8", "cp1250"),
    "ru": ("utf-8", "utf-16", "cp1251"),
    "el": ("utf-8-sig", "cp1253"),
    "zh": ("utf-8", "utf-16", "gb18030"),
    "ja": ("utf-8", "utf-16-be", "cp932"),
}
TIMES = [(1.25, 3.5), (4.04, 6.77), (3661.01, 3664.99)]
FORMATS = (".srt", ".vtt", ".ass", ".ssa", ".lrc")


def stamp(seconds: float, form: str) -> str:
    hundredths = round(100 * seconds)
    hours, rest = divmod(hundredths, 360_000)
    minutes, rest = divmod(rest, 6000)
    whole, part = divmod(rest, 100)
    return {
        ".srt": f"{hours:02}:{minutes:02}:{whole:02},{part:02}0",
        ".vtt": f"{hours:02}:{minutes:02}:{whole:02}.{part:02}0",
        ".ass": f"{hours}:{minutes:02}:{whole:02}.{part:02}",
        ".ssa": f"{hours}:{minutes:02}:{whole:02}.{part:02}",
        ".lrc": f"[{60 * hours + minutes:02}:{whole:02}.{part:02}]",
    }[form]


def written(texts: list[str], form: str) -> str:
    rows = [(stamp(start, form), stamp(end, form), text) for (start, end), text in zip(TIMES, texts, strict=True)]
    if form == ".srt":
        return "\n".join(f"{n}\n{start} --> {end}\n{text}\n" for n, (start, end, text) in enumerate(rows, 1))
    if form == ".vtt":
        return "WEBVTT\n\n" + "\n".join(f"{start} --> {end}\n<v Anna>{text}\n" for start, end, text in rows)
    if form == ".lrc":
        return "[ar:Somebody]\n" + "".join(f"{start}{text}\n{end}\n" for start, end, text in rows)
    version = "v4.00+" if form == ".ass" else "v4.00"
    styles = "V4+ Styles" if form == ".ass" else "V4 Styles"
    first = "Layer" if form == ".ass" else "Marked"
    head = (
        f"[Script Info]\nScriptType: {version}\n\n[{styles}]\nFormat: Name, Fontname, Fontsize\n"
        f"Style: Default,Arial,20\n\n[Events]\n"
        f"Format: {first}, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
    )
    number = "0" if form == ".ass" else "Marked=0"
    return head + "".join(f"Dialogue: {number},{a},{b},Default,,0,0,0,,{{\\i1}}{text}{{\\i0}}\n" for a, b, text in rows)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("language", "encoding"), [(lang, enc) for lang, many in ENCODINGS.items() for enc in many])
def test_every_format_in_every_encoding(tmp_path: Path, form: str, language: str, encoding: str) -> None:
    texts = TEXTS[language]
    if encoding in ("cp1251", "cp1252", "cp1253"):
        texts = [text.replace("’", "'") for text in texts]
    path = tmp_path / f"film.{language}{form}"
    path.write_bytes(written(texts, form).encode(encoding))
    cues = read_subtitles(path)
    assert [cue.text for cue in cues] == texts
    assert {cue.language for cue in cues} == {language}
    for cue, (start, end) in zip(cues, TIMES, strict=True):
        assert abs(cue.start_s - start) <= 0.01 and abs(cue.end_s - end) <= 0.01


@pytest.mark.parametrize("language", ["ru", "zh", "ja", "de", "el"])
def test_the_encoding_is_found_without_a_language_in_the_name(language: str) -> None:
    text = written([*TEXTS[language]], ".srt")
    for encoding in ENCODINGS[language]:
        assert decoded(text.encode(encoding)).lstrip("\ufeff") == text, encoding


BROKEN = {
    "empty": (b"", "empty file"),
    "blank": (b"\n \n", "empty file"),
    "binary": (bytes(range(256)) * 40, "not|no subtitles"),
    "prose": (b"This is a letter, and nobody says it at any time.\n", "not subtitles|no subtitles"),
    "no text": (b"1\n00:00:01,000 --> 00:00:02,000\n\n\n", "not subtitles|no subtitles"),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_refused_with_a_reason(tmp_path: Path, form: str, kind: str) -> None:
    data, reason = BROKEN[kind]
    path = tmp_path / f"film{form}"
    path.write_bytes(data)
    with pytest.raises(MediaError, match=reason):
        read_subtitles(path)


@pytest.mark.parametrize("form", FORMATS)
def test_of_a_file_that_breaks_off_the_beginning_is_read(tmp_path: Path, form: str) -> None:
    text = written(TEXTS["en"], form)
    path = tmp_path / f"film{form}"
    path.write_text(text[: text.index("harbour")], encoding="utf-8")
    cues = read_subtitles(path)
    assert cues[0].text == TEXTS["en"][0] and abs(cues[0].start_s - 1.25) <= 0.01


def test_damaged_cues_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "film.srt"
    path.write_text(
        "1\n00:00:01,000 --> 00:00:02,000\nOne.\n\n2\n00:00:xx,000 --> nonsense\nTwo.\n\n"
        "3\n00:00:05,000 --> 00:00:06,000\nThree.\n", encoding="utf-8",
    )  # fmt: skip
    cues = read_subtitles(path)
    assert [cue.start_s for cue in cues] == [1.0, 5.0] and cues[-1].text == "Three."


def test_marks_are_not_said() -> None:
    assert cleaned("{\\an8}<font color=red>Hello</font>\\N<i>you</i>") == "Hello you"
    assert cleaned("♪ ♪") == "" and cleaned("<c.yellow>…</c>") == ""


def test_languages_of_names() -> None:
    assert language_of_name("film.de.srt") == "de" and language_of_name("a.film.pt-BR.forced.srt") == "pt"
    assert language_of_name("film.ger.ass") == "de" and language_of_name("film.srt") is None
    assert language_of_name("Mr.Smith.srt") is None
    assert normal_language("EN_us") == "en" and normal_language("und") is None and normal_language(None) is None


@given(st.binary(max_size=400), st.sampled_from(FORMATS))
def test_whatever_a_file_holds_is_read_or_refused(data: bytes, form: str) -> None:
    try:
        cues = read_subtitles(Path(f"film{form}"), data)
    except MediaError as error:
        assert str(error)
    else:
        assert cues and all(isinstance(cue, Cue) and cue.end_s >= cue.start_s >= 0 and cue.text for cue in cues)


@given(st.text(max_size=300), st.sampled_from(FORMATS))
def test_whatever_text_stands_in_a_cue(text: str, form: str) -> None:
    try:
        read_subtitles(Path(f"film{form}"), written([text, "and", "so on"], form).encode("utf-8", "replace"))
    except MediaError as error:
        assert str(error)


def test_which_subtitles_belong_to_which_film(tmp_path: Path) -> None:
    names = ["film.mp4", "film.srt", "film.de.srt", "film.mp4.vtt", "film.de.forced.ass", "film 2.mp4", "film 2.srt",
             "other.srt", "song.mp3", "song.lrc", "film.two.de.srt", "film.two.mkv"]  # fmt: skip
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    kinds = frozenset({".mp4", ".mp3", ".mkv"})
    met = {entry.path: entry.sidecars for entry in walk(tmp_path, WalkRules(), subtitled=kinds)}
    assert set(met) == {"film.mp4", "film 2.mp4", "song.mp3", "film.two.mkv", "other.srt"}
    held = {path: [stamp.split(":")[0] for stamp in stamps.split("/") if stamp] for path, stamps in met.items()}
    assert held["film.mp4"] == ["film.de.forced.ass", "film.de.srt", "film.mp4.vtt", "film.srt"]
    assert held["film.two.mkv"] == ["film.two.de.srt"] and held["song.mp3"] == ["song.lrc"]
    assert subtitles_beside(tmp_path / "song.mp3") == ["song.lrc"]
    [one] = walk(tmp_path, WalkRules(), "song.mp3", subtitled=kinds)
    assert one.sidecars == met["song.mp3"]
