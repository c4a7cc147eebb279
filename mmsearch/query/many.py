"""Many questions at once: equal ones are answered once, and while a part is answered the next one is encoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from mmsearch.core.types import Hit
from mmsearch.models.encoders.base import Encoder, FloatArray
from mmsearch.query.evidence import HoldersOfWords
from mmsearch.query.options import SearchOptions
from mmsearch.query.question import EncodedQuestion, Question, encode_questions
from mmsearch.query.rerank import Reranking
from mmsearch.query.searcher import Searcher

PART = 512
"""Questions that are encoded, and compared with all vectors, together. Encoding and comparing keep every core busy,
looking up answers only one; larger parts overlap less, smaller ones read all vectors more often."""


def answer_many(
    searcher: Searcher,
    encoder: Encoder | None,
    questions: Sequence[Question],
    options: SearchOptions,
    reranking: Reranking | None = None,
) -> list[list[Hit]]:
    """The answers to ``questions``, in their order; as `Searcher.search_many` of all of them.

    ``encoder`` may be ``None`` where no question has anything to encode. Each text is encoded once.
    """
    numbers: dict[Question | int, int] = {}
    unique: list[Question] = []
    places: list[int] = []
    for place, one in enumerate(questions):
        key: Question | int = place if one.images else one  # pictures cannot be told to be equal
        if key not in numbers:
            numbers[key] = len(unique)
            unique.append(one)
        places.append(numbers[key])
    answers: list[list[Hit]] = []
    words: HoldersOfWords = {}
    # A reranker has a budget of time, which nothing beside it may spend.
    size = PART if reranking is None else max(1, len(unique))
    for part in _encoded(encoder, [unique[i : i + size] for i in range(0, len(unique), size)]):
        answers += searcher.search_many(part, options, reranking, words)
    return [list(answers[number]) for number in places]


def _encoded(encoder: Encoder | None, parts: Sequence[Sequence[Question]]) -> Iterator[list[EncodedQuestion]]:
    """The parts, each encoded while the one before it is in use."""
    known: dict[str, FloatArray] = {}
    if len(parts) < 2:
        yield from (encode_questions(encoder, part, known) for part in parts)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="mmsearch-encode") as background:
        coming = background.submit(encode_questions, encoder, parts[0], known)
        for part in parts[1:]:
            ready, coming = coming.result(), background.submit(encode_questions, encoder, part, known)
            yield ready
        yield coming.result()
