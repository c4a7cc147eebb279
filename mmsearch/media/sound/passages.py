"""What is said, as cues with times, to passages that a text encoder reads: cut at pauses and where sentences end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

PAUSE_S = 1.0
"""Seconds of silence that end a passage; in subtitles, whose ends are late, between two cues."""
FEW = 3
"""Words: a sentence of fewer goes together with the next one, unless a pause follows it."""
MANY = 24
"""Words after which a passage also ends at a comma or with its cue: not all that is said has full stops."""
MOST = 60
"""Words after which it ends anywhere."""

_WIDE = r"\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_WORD = re.compile(rf"\s*(?:[{_WIDE}][。！？、，!?.,…」』）]*|[^\s{_WIDE}]+)")
_ENDS = re.compile(r"(?:[.!?…]|[。！？])[\"'”’»)\]」』）]*$")
_RESTS = re.compile(r"[,;:，、；：][\"'”’»)\]]*$")
_ABBREVIATED = re.compile(r"(?:\b[A-Za-z]|\b(?:[DJMS]r|Mrs|Ms|Prof|St|vs|etc|No|Nr|ca|bzw|z\.B|e\.g|i\.e))\.$")


class Word(NamedTuple):
    """A word with its times in seconds; ``text`` begins with the space before it, where there is one."""

    text: str
    start_s: float
    end_s: float


class Cue(NamedTuple):
    """What is said from ``start_s`` to ``end_s``, seconds; ``words`` where their times are known, else empty.

    ``language``: ISO 639-1 where there is such a code, ``None`` where it is not known.
    """

    start_s: float
    end_s: float
    text: str
    language: str | None = None
    words: tuple[Word, ...] = ()


def spoken_passages(cues: Iterable[Cue], max_tokens: int, count_tokens: Callable[[str], int]) -> Iterator[Cue]:
    """The passages of one track, in its order; ``count_tokens`` counts special tokens in, as the encoder does.

    A passage is one sentence, or several of fewer than `FEW` words. It begins with its first word and ends with its
    last one. Where words have no times, those of a cue are spread over it by their letters, so a passage that begins or
    ends with a cue has the times of the cue exactly.
    """
    group: list[tuple[Word, bool]] = []
    language: str | None = None
    is_exact = True
    for cue in cues:
        is_pause = bool(group) and cue.start_s - group[-1][0].end_s >= PAUSE_S
        if group and (is_pause or cue.language != language or (len(group) >= MANY)):
            yield from _fitting(group, language, is_exact, max_tokens, count_tokens)
            group = []
        is_exact = bool(cue.words) and (is_exact or not group)
        language = cue.language
        for word in cue.words or _spread(cue):
            if group and word.start_s - group[-1][0].end_s >= PAUSE_S:
                yield from _fitting(group, language, is_exact, max_tokens, count_tokens)
                group = []
            group.append((word, bool(cue.words)))
            if _is_end(group):
                yield from _fitting(group, language, is_exact, max_tokens, count_tokens)
                group = []
    if group:
        yield from _fitting(group, language, is_exact, max_tokens, count_tokens)


def _spread(cue: Cue) -> list[Word]:
    """The words of a cue, each for as long as its share of the letters."""
    texts = _WORD.findall(cue.text)
    total = sum(map(len, texts)) or 1
    words, before = [], 0
    for text in texts:
        start, before = before, before + len(text)
        span = cue.end_s - cue.start_s
        words.append(Word(text, cue.start_s + span * start / total, cue.start_s + span * before / total))
    if words:
        words[-1] = words[-1]._replace(end_s=cue.end_s)
    # A cue begins a word even where its text has no space before it; scripts without spaces need none.
    if words and not re.match(rf"[\s{_WIDE}]", words[0].text):
        words[0] = words[0]._replace(text=" " + words[0].text)
    return words


def _is_end(group: Sequence[tuple[Word, bool]]) -> bool:
    word = group[-1][0].text
    if _ENDS.search(word) and not _ABBREVIATED.search(word):
        return _size(group) >= FEW
    return len(group) >= MOST or (len(group) >= MANY and _RESTS.search(word) is not None)


def _size(group: Sequence[tuple[Word, bool]]) -> float:
    """Words; a character of a script without spaces is half of one."""
    return sum(0.5 if re.match(rf"\s*[{_WIDE}]", word.text) else 1.0 for word, _ in group)


def _fitting(
    group: Sequence[tuple[Word, bool]], language: str | None, is_exact: bool, max_tokens: int,
    count_tokens: Callable[[str], int],
) -> Iterator[Cue]:  # fmt: skip
    text = "".join(word.text for word, _ in group).strip()
    if not any(map(str.isalnum, text)):
        return
    if len(group) > 1 and count_tokens(text) > max_tokens:
        for half in (group[: len(group) // 2], group[len(group) // 2 :]):
            yield from _fitting(half, language, is_exact, max_tokens, count_tokens)
        return
    first, last = group[0][0], group[-1][0]
    words = tuple(word for word, _ in group) if is_exact and all(known for _, known in group) else ()
    yield Cue(round(first.start_s, 3), round(max(first.start_s, last.end_s), 3), text, language, words)
