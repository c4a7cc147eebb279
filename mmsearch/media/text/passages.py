"""Text to passages that a text encoder reads whole: cut at paragraphs, else at sentences, else at words."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator

CountTokens = Callable[[str], int]

_LONGEST_TOKEN = 12
"""No tokenizer takes so many characters a token over a whole passage: longer text is cut without counting."""

_PARAGRAPH_BORDER = re.compile(r"\n[^\S\n]*\n\s*")
_SENTENCE = re.compile(r".*?(?:[.!?…]{1,8}[\"'”’»)\]]{0,4}(?=\s)\s*|[。！？]+[」』”）]*\s*|\Z)", re.DOTALL)
_WORD = re.compile(r"\S+\s*|\s+")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n(?:---|\.\.\.)[^\S\n]*(?:\n|\Z)", re.DOTALL)
_DATA = re.compile(r"[!-~]{500,}")
"""No language writes such words: this is data (base64, hexadecimal), and means nothing to a text encoder."""
_HEADING_LENGTH = 80


def passages(text: str, max_tokens: int, count_tokens: CountTokens) -> Iterator[str]:
    """The passages of a text, in order: one a paragraph, with its heading, cut where it is too long.

    ``count_tokens`` counts special tokens in, as the encoder does; every passage has at most ``max_tokens``.
    A paragraph without a sentence (one short line that ends in no full stop) is a heading and goes with what
    follows.
    """
    heading = ""
    text = _DATA.sub(" ", text)
    for paragraph in _PARAGRAPH_BORDER.split(text):
        paragraph = paragraph.strip()
        if not paragraph:
            continue
        if _is_heading(paragraph):
            if heading and len(heading) + len(paragraph) > 2 * _HEADING_LENGTH:
                yield from cut(heading, max_tokens, count_tokens)
                heading = ""
            heading = f"{heading}\n{paragraph}".strip()
            continue
        yield from cut(f"{heading}\n{paragraph}".strip(), max_tokens, count_tokens)
        heading = ""
    if heading:
        yield from cut(heading, max_tokens, count_tokens)


def _is_heading(paragraph: str) -> bool:
    return len(paragraph) <= _HEADING_LENGTH and "\n" not in paragraph and paragraph[-1] not in ".!?…。！？,;"


def markdown_to_text(text: str) -> str:
    """Markdown without its marks: headings, emphasis, links and pictures keep their words."""
    text = _FRONT_MATTER.sub("", text)
    text = _without_comments(text)
    text = re.sub(r"^\s{0,3}(?:`{3,}|~{3,}).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\s{0,3}(?:=+|-+|\*(?:[^\S\n]*\*){2,}|_{3,})[^\S\n]*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\s{0,3}#{1,6}[^\S\n]+(.*)$", _heading, text, flags=re.MULTILINE)
    text = re.sub(r"^\s{0,3}>[^\S\n]?", "", text, flags=re.MULTILINE)
    text = re.sub(r"!?\[([^\[\]\n]{0,500})\]\([^()\s]{0,2000}(?:\s[^()\n]{0,300})?\)", r"\1", text)
    return _without_emphasis(text)


_MARK = re.compile(r"(?=(\*\*|__|`))")
_LONGEST_EMPHASIS = 500


def _without_emphasis(text: str) -> str:
    """Without pairs of ``**``, ``__`` and backquotes around up to 500 characters of one line that begin and end with
    none that is white; each mark goes with the next that can close it. By hand, because a pattern looks 500 characters
    ahead from every mark that is never closed.
    """
    marks = [(found.start(), found[1]) for found in _MARK.finditer(text)]
    closing: dict[str, list[int]] = {}
    for at, mark in marks:
        if at and not text[at - 1].isspace():
            closing.setdefault(mark, []).append(at)
    parts, place = [], 0
    for at, mark in marks:
        start = at + len(mark)
        ends = closing.get(mark, [])
        if at < place or text[start : start + 1].isspace() or (i := bisect_left(ends, start + 1)) == len(ends):
            continue
        end = ends[i]
        if end - start <= _LONGEST_EMPHASIS and "\n" not in text[start:end]:
            parts += [text[place:at], text[start:end]]
            place = end + len(mark)
    return "".join([*parts, text[place:]])


def _heading(match: re.Match[str]) -> str:
    return f"\n{match[1].strip().rstrip('#').strip()}\n"


def _without_comments(text: str) -> str:
    """Without ``<!-- … -->``; by hand, because a pattern takes quadratic time where comments are never closed."""
    parts = []
    place = 0
    while (start := text.find("<!--", place)) >= 0 and (end := text.find("-->", start + 4)) >= 0:
        parts.append(text[place:start])
        place = end + 3
    return "".join([*parts, text[place:]])


def cut(text: str, max_tokens: int, count_tokens: CountTokens) -> Iterator[str]:
    """A paragraph to pieces of at most ``max_tokens``: whole, else cut at sentences or words."""
    if _fits(text, max_tokens, count_tokens):
        yield text
        return
    sentences = (part for part in _SENTENCE.findall(text) if part)
    yield from _pack(sentences, max_tokens, count_tokens, _cut_sentence)


_Cutter = Callable[[str, int, CountTokens], Iterator[str]]


def _cut_sentence(text: str, max_tokens: int, count_tokens: CountTokens) -> Iterator[str]:
    yield from _pack(_WORD.findall(text), max_tokens, count_tokens, _cut_word)


def _cut_word(text: str, max_tokens: int, count_tokens: CountTokens) -> Iterator[str]:
    """Scripts without spaces, and what is not language. A character that never fits is given as it is."""
    if len(text) <= 1 or _fits(text, max_tokens, count_tokens):
        yield text
        return
    size = max(1, max_tokens if len(text) > 2 * max_tokens else len(text) // 2)
    for start in range(0, len(text), size):
        yield from _cut_word(text[start : start + size], max_tokens, count_tokens)


def _fits(text: str, max_tokens: int, count_tokens: CountTokens) -> bool:
    return len(text) <= _LONGEST_TOKEN * max_tokens and count_tokens(text) <= max_tokens


def _pack(
    parts: Iterator[str] | list[str], max_tokens: int, count_tokens: CountTokens, cut_part: _Cutter
) -> Iterator[str]:
    """Puts as many neighbouring parts together as fit; a part too long for itself is cut by ``cut_part``.

    Every part is counted once and the counts are added, so the work is linear. Tokens may merge or split
    where parts meet, so a finished passage is counted again, and packed tighter if it came out too long.
    """
    special = count_tokens("")
    group: list[str] = []
    tokens = special
    for part in parts:
        small = len(part) <= _LONGEST_TOKEN * max_tokens
        count = count_tokens(part.strip()) - special if small else max_tokens
        if group and tokens + count > max_tokens:
            yield from _finish(group, max_tokens, count_tokens, cut_part)
            group, tokens = [], special
        if special + count > max_tokens:
            yield from filter(None, (piece.strip() for piece in cut_part(part.strip(), max_tokens, count_tokens)))
            continue
        group.append(part)
        tokens += count
    yield from _finish(group, max_tokens, count_tokens, cut_part)


def _finish(group: list[str], max_tokens: int, count_tokens: CountTokens, cut_part: _Cutter) -> Iterator[str]:
    passage = "".join(group).strip()
    if not passage:
        return
    if len(group) == 1 or _fits(passage, max_tokens, count_tokens):
        yield passage
        return
    middle = len(group) // 2
    yield from _finish(group[:middle], max_tokens, count_tokens, cut_part)
    yield from _finish(group[middle:], max_tokens, count_tokens, cut_part)
