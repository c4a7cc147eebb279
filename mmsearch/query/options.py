"""What to answer with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mmsearch.core.errors import UsageError
from mmsearch.core.modalities import check_names
from mmsearch.core.options import Options, option
from mmsearch.core.types import Modality

MATCH = 0.08
"""From this relevance on a hit counts as a match. Chosen so that of the names of what a library shows at most one in 50
is left without a match, on libraries of COCO photos (benchmarks/relevance.py)."""

ALPHA = 0.5
"""The strength of the hubness correction. With the built-in encoder, captions find most by 0.6 and names lose nothing
(Flickr8k dev; benchmarks/query_quality.py)."""

WORDS = 6.0


def _modalities(given: Modality | Sequence[Modality] | None) -> tuple[Modality, ...] | None:
    if given is not None and not isinstance(given, (str, Sequence)):
        raise UsageError(f"modality is a name, or several, got {given!r}")
    return (given,) if isinstance(given, str) else None if given is None else tuple(given)


def _words(given: float | bool) -> float:
    return WORDS if given is True else 0.0 if given is False else given


def _seconds(given: float | str | None) -> float | None:
    if not isinstance(given, str):
        return given
    number, unit = (given[:-2], 0.001) if given.endswith("ms") else (given.removesuffix("s"), 1.0)
    try:
        return float(number) * unit
    except ValueError:
        raise UsageError(f"{given!r} is no time: write for instance 1s or 500ms") from None


def _language(given: str | None) -> str | None:
    if given is None or (isinstance(given, str) and re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*", given)):
        return None if given is None else given.lower().split("-")[0]
    raise UsageError(f"{given!r} is no language: write its code, such as en, de or zh")


@dataclass(frozen=True)
class SearchOptions(Options):
    """What to answer with.

    Without ``modalities``, those that a ``type:`` of the query names count, else images, videos and what is said: in
    one list text passages would win over any image, because two texts always lie closer than a text and an image. What
    is said comes in by its relevance, see `mmsearch.query.spoken`.

    Results are matches, then weaker matches (`Hit.match`); ``strict`` leaves out the weaker ones, so that there may be
    none. ``min_relevance`` leaves out no hit whose relevance is not known. ``hubness``: how much of a picture's mean
    similarity to its nearest captions is taken off its score (``alpha`` of NNN), weighed by `hubness.weights`; where
    an image asks for texts, of a text's mean similarity to its nearest photos. ``words``: how many standard deviations
    of the query's scores a document rises whose path, caption or text has all its words.

    ``language``: the code of the language in which the words are written, for an encoder that reads English otherwise
    than others; ``None`` lets it tell.

    ``reranker`` names one (see `rerankers.open_reranker`) that puts the first ``rerank_depth`` results of queries in
    words into a better order, in ``rerank_budget_s`` seconds a query at most (``None``: as long as it takes). The time
    that it takes to open one, once for an open index, does not count.
    """

    k: int = option(10, "How many results.", flag="-k", least=1)
    modalities: tuple[Modality, ...] | None = option(
        None,
        "Only image, video, text, sound or speech; repeatable.",
        flag="--modality",
        keyword="modality",
        read=_modalities,
    )
    min_relevance: float | None = option(
        None, "Leave out results of less relevance, 0 to 1.", flag="--min-relevance", least=0, most=1, old="min_score"
    )
    strict: bool = option(False, "Only matches; exit code 1 where there are none.", flag="--strict")
    collapse: bool = option(False, "Show near-duplicates one by one.", flag="--no-collapse", shown=True)
    hubness: float = option(ALPHA, "Strength of the hubness correction, 0 for none.", least=0)
    words: float = option(WORDS, "How much names, captions and texts count, 0 for not at all.", least=0, read=_words)
    language: str | None = option(
        None, "Language of the words, such as en or de: by default told by the words themselves.",
        flag="--language", read=_language,
    )  # fmt: skip
    reranker: str | None = option(
        None,
        "Let a reranker look at the first results again: by default the encoder's own, else a directory or a model in "
        "the local cache (BLIP, CoCa).",
        flag="--rerank", metavar="[NAME]", switch="builtin",
    )  # fmt: skip
    rerank_depth: int = option(50, "How many results the reranker sees.", flag="--rerank-depth", least=1)
    rerank_budget_s: float | None = option(
        None, "How long it may take for a query, such as 1s or 500ms.", flag="--rerank-budget", http="rerank_budget_s",
        least=0, read=_seconds,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(self.modalities or ())
