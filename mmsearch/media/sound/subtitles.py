"""Files of subtitles (SubRip, WebVTT, Advanced SubStation, lyrics) to cues, in whatever encoding they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from mmsearch.core.errors import MediaError
from mmsearch.media.base import opened
from mmsearch.media.sound.passages import Cue
from mmsearch.media.text.encoding import text_encoding

MAX_BYTES = 10_000_000
LAST_LINE_S = 10.0
"""Seconds for which the last line of lyrics is taken to last: the format has no ends."""
_FORMATS = {".srt": "srt", ".vtt": "vtt", ".ass": "ass", ".ssa": "ssa"}
_ENCODINGS = (
    "utf_16_le", "utf_16_be", "gb18030", "big5", "cp932", "euc_jp", "cp949", "cp1250", "cp1251", "cp1252", "cp1253",
    "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874", "koi8_r",
)  # fmt: skip
_USUAL = {
    "ar": "cp1256", "bg": "cp1251", "cs": "cp1250", "el": "cp1253", "fa": "cp1256", "he": "cp1255", "hr": "cp1250",
    "hu": "cp1250", "ja": "cp932", "ko": "cp949", "lt": "cp1257", "lv": "cp1257", "pl": "cp1250", "ro": "cp1250",
    "ru": "cp1251", "sk": "cp1250", "sl": "cp1250", "sr": "cp1251", "th": "cp874", "tr": "cp1254", "uk": "cp1251",
    "vi": "cp1258", "zh": "gb18030",
}  # fmt: skip
"""The encoding of old files in a language, where the name of the file says which that is."""
_THREE_LETTERS = {
    "ara": "ar", "bul": "bg", "ces": "cs", "cze": "cs", "chi": "zh", "zho": "zh", "dan": "da", "deu": "de", "ger": "de",
    "dut": "nl", "nld": "nl", "ell": "el", "gre": "el", "eng": "en", "est": "et", "fin": "fi", "fra": "fr", "fre": "fr",
    "heb": "he", "hin": "hi", "hrv": "hr", "hun": "hu", "ice": "is", "isl": "is", "ind": "id", "ita": "it", "jpn": "ja",
    "kor": "ko", "lav": "lv", "lit": "lt", "may": "ms", "msa": "ms", "nor": "no", "nob": "no", "per": "fa", "fas": "fa",
    "pol": "pl", "por": "pt", "ron": "ro", "rum": "ro", "rus": "ru", "slk": "sk", "slo": "sk", "slv": "sl", "spa": "es",
    "srp": "sr", "swe": "sv", "tha": "th", "tur": "tr", "ukr": "uk", "vie": "vi",
}  # fmt: skip
_TWO_LETTERS = frozenset(
    {*_THREE_LETTERS.values(), *_USUAL, "ca", "eu", "gl", "bn", "ta", "te", "ur", "sw", "ka", "mk"}
)
_STAMP = re.compile(r"\[(\d{1,3}):(\d{1,2})(?:[.:](\d{1,3}))?\]")
_OFFSET = re.compile(r"\[offset:\s*([+-]?\d{1,9})\s*\]", re.IGNORECASE)
_MARKS = re.compile(r"<[^<>\n]{0,200}>|\{[^{}\n]{0,200}\}")


def read_subtitles(path: Path, data: bytes | None = None) -> list[Cue]:
    """The cues of a file, by their beginnings; ``data``: its bytes, where they are at hand.

    Raises:
        MediaError: it cannot be read, or there is nothing said in it.
    """
    with opened(path, data) as stream:
        found = stream.read(MAX_BYTES + 1)
    if len(found) > MAX_BYTES:
        raise MediaError(f"too large for subtitles: more than {MAX_BYTES // 10**6} MB")
    if not found.strip():
        raise MediaError("empty file")
    language = language_of_name(path.name)
    text = decoded(found, language)
    suffix = path.suffix.lower()
    if suffix == ".vtt" and (header := re.match(r"\ufeff?WEBVTT[^\n]*\n(?:[^\n]+\n)*?Language:\s*([\w-]+)", text)):
        language = normal_language(header[1]) or language
    rows = _lyrics(text) if suffix == ".lrc" else _events(text, _FORMATS[suffix])
    cues = sorted((Cue(start, end, said, language) for start, end, said in rows), key=lambda cue: cue[:2])
    if not cues:
        raise MediaError("no subtitles in it: expected texts with times")
    return cues


def _events(text: str, form: str) -> Iterator[tuple[float, float, str]]:
    import pysubs2

    try:
        events = pysubs2.SSAFile.from_string(text.lstrip("\ufeff"), format_=form)
    except Exception as error:  # of many kinds, where a file is broken
        raise MediaError(f"not subtitles that can be read: {str(error) or type(error).__name__}") from error
    before: tuple[int, int, str] | None = None
    for event in events:
        if event.is_comment or event.is_drawing:
            continue
        said = cleaned(event.plaintext)
        if said and event.end >= event.start >= 0 and (event.start, event.end, said) != before:
            before = (event.start, event.end, said)
            yield event.start / 1000, event.end / 1000, said


def _lyrics(text: str) -> Iterator[tuple[float, float, str]]:
    """A line lasts until the next one; a line may have several times, and an empty one ends that before it."""
    offset = _OFFSET.search(text)
    shift = int(offset[1]) / 1000 if offset else 0.0
    lines: list[tuple[float, str]] = []
    for line in text.splitlines():
        stamps = list(_STAMP.finditer(line))
        said = cleaned(re.sub(r"<\d+:\d+(?:[.:]\d+)?>", "", _STAMP.sub("", line)))
        for stamp in stamps:
            minutes, seconds, part = stamp.groups()
            at = 60 * int(minutes) + int(seconds) + (int(part) / 10 ** len(part) if part else 0.0)
            lines.append((max(0.0, at - shift), said))
    lines.sort(key=lambda line: line[0])
    for (start, said), (end, _) in pairwise([*lines, (lines[-1][0] + LAST_LINE_S if lines else 0.0, "")]):
        if said:
            yield start, min(end, start + LAST_LINE_S), said


def cleaned(text: str) -> str:
    """On one line and without marks; empty where no letter is left."""
    plain = " ".join(_MARKS.sub("", text.replace("\\N", "\n").replace("\\h", " ")).split())
    return plain if any(map(str.isalnum, plain)) else ""


def decoded(data: bytes, language: str | None = None) -> str:
    """Text from bytes: by a byte order mark, UTF-8, the encoding that files in that language had, else a guess.

    Raises:
        MediaError: not text.
    """
    try:
        encoding: str | None = text_encoding(data)
    except MediaError:
        encoding = None
    if encoding is None or encoding == "cp1252":
        encoding = _guessed(data, _USUAL.get(language or ""))
    return data.decode(encoding, "replace").replace("\r\n", "\n").replace("\r", "\n")


def _guessed(data: bytes, usual: str | None) -> str:
    from charset_normalizer import from_bytes

    if usual is not None:
        try:
            data.decode(usual)
        except UnicodeDecodeError:
            usual = None
    if usual is not None and b"\0" not in data:
        return usual
    best = from_bytes(data[:200_000], cp_isolation=list(_ENCODINGS), enable_fallback=False).best()
    if best is None:
        raise MediaError("not text in a known encoding")
    return best.encoding


def language_of_name(name: str) -> str | None:
    """``film.de.srt``, ``film.pt-BR.forced.srt``, ``film.ger.srt`` → the language; ``None`` where the name has none."""
    for part in reversed(name.split(".")[1:-1]):
        if (found := normal_language(part)) is not None:
            return found
    return None


def normal_language(code: str | None) -> str | None:
    """A code of a language as ISO 639-1; ``None`` for what is none."""
    main = re.split("[-_]", (code or "").strip().lower())[0]
    return _THREE_LETTERS.get(main) or (main if main in _TWO_LETTERS else None)
