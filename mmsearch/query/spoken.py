"""Spoken moments beside pictures: which queries look for them, and how relevant they are.

Two texts always lie closer than a text and a picture, so spoken passages are searched for by themselves, and only their
relevance is compared with that of pictures, by `mmsearch.query.lists`. Most queries are about what can be seen: a
passage that only means something alike comes before pictures that hardly fit, and before others only where it fits
better than what nearly all generic queries find among the passages of the index.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from mmsearch.core.modalities import names_in
from mmsearch.filters import Not, OneOf, Spoken
from mmsearch.query.options import SearchOptions
from mmsearch.query.question import Question
from mmsearch.store.base import Speech, Store

SPEECH = "speech"
MOST, HINT, HINT_POWER, SURE_POWER = 0.15, 0.19, 0.5, 200
"""The scale of `relevance_of_speech`: by its meaning alone a passage has up to ``HINT`` of ``MOST`` where it fits as
generic queries do, which few pictures have that are right, and all of it where it fits better than nearly all of them
(benchmarks/sound.py, chosen on ``CHOOSING`` and on Flickr8k dev)."""
WORD, PHRASE = 0.92, 14
"""The doubt that one shared word leaves, and the number of words from which on each counts for much more: one may be
there by chance, a dozen are not (``1 − WORD^(1 + (words − 1)² / PHRASE)``)."""
FITS = 0.015
"""Below this relevance a passage is of no use to anybody who did not ask for speech."""
_WORD = re.compile(r"\w+")


def passages_wanted(question: Question) -> tuple[Spoken, ...]:
    """What a passage must be like to be found at all: what ``said:`` and ``lang:`` say of it; none where a query does
    not ask for speech so.
    """
    return tuple(part for part in question.filters if isinstance(part, Spoken))


def is_speech_beside(question: Question, options: SearchOptions, store: Store) -> bool:
    """Whether a query for pictures looks for spoken moments too: one in words, that does not say which kinds it wants,
    or names speech among them.
    """
    if SPEECH not in store.modalities or question.images or not question.texts:
        return False
    left_out = (one.part for one in question.filters if isinstance(one, Not) and isinstance(one.part, OneOf))
    if any(one.field == "modality" and SPEECH in one.values for one in left_out):
        return False
    named = options.modalities or question.modalities
    return named is None or (SPEECH in named and len(set(named)) > 1)


def without_speech(question: Question, options: SearchOptions, store: Store) -> SearchOptions:
    """The options of the search for everything else."""
    named = options.modalities or question.modalities or names_in("visual", store.modalities)
    return replace(options, modalities=tuple(name for name in named if name != SPEECH))


def relevance_of_speech(share: float | None, words_found: float, words: int) -> float | None:
    """Of a passage: ``share`` of generic queries whose best passage fits worse, 0 to 1; ``words_found``: what share of
    the query's ``words`` words are in it.
    """
    if share is None and not words_found:
        return None
    by_meaning = 0.0 if share is None else MOST * (HINT * share**HINT_POWER + (1 - HINT) * share**SURE_POWER)
    doubt = float(WORD ** (1 + (words - 1) ** 2 / PHRASE))
    return max(by_meaning, words_found**4 * (1 - doubt))


def time_of_words(speech: Speech | None, wanted: Sequence[str], otherwise: float | None) -> float | None:
    """When the first of some phrases begins in a passage; where the times of its words are not known, its beginning."""
    if speech is None or not speech.words:
        return otherwise
    words = [("".join(_WORD.findall(text.casefold())), start) for text, start, _ in speech.words]
    for phrase in wanted:
        run = ["".join(_WORD.findall(part)) for part in phrase.casefold().split()]
        for at in range(len(words) - len(run) + 1):
            if run and [word for word, _ in words[at : at + len(run)]] == run:
                return words[at][1]
    return otherwise
