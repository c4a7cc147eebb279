"""The first answers put in a better order by a reranker, within a budget of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.errors import UsageError
from mmsearch.rerankers.base import Reranker, TokenArray
from mmsearch.search.candidates import Candidate

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK = 8
"""Pictures that are decoded and looked at between two looks at the clock."""


def rerank(
    reranker: Reranker,
    text: str,
    ranked: Sequence[Candidate],
    picture_of: Callable[[Candidate], Image],
    depth: int,
    budget_s: float | None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Candidate]:
    """The first ``depth`` candidates in the order of first stage and reranker together, the others after them.

    A candidate that the reranker did not see (a text, an unreadable file, or one that the budget leaves out) keeps
    its order behind those that it saw. Work stops before a step that, as slow as the slowest so far, would pass
    the budget.
    """
    start, slowest, step = clock(), 0.0, 1
    seen: list[Candidate] = []
    tokens: list[TokenArray] = []
    queue = [one for one in ranked[:depth] if one.segment.modality != "text"]
    while queue:
        if budget_s is not None and clock() - start + 1.5 * slowest * step > budget_s and (seen or budget_s <= 0):
            break
        part, queue = queue[:step], queue[step:]
        before = clock()
        pictures = [(one, picture) for one in part if (picture := _picture(picture_of, one)) is not None]
        if pictures:
            tokens.append(reranker.image_tokens([picture for _, picture in pictures]))
            seen += [one for one, _ in pictures]
        slowest = max(slowest if step > 1 else 0.0, (clock() - before) / len(part))
        step = CHUNK if len(seen) >= 2 else 1
    if len(seen) < 2:
        return list(ranked)
    scores = reranker.score_tokens(text, np.concatenate(tokens))
    mixed = reranker.mixed(np.array([one.total for one in seen], dtype=np.float32), scores)
    spread = float(np.std([one.total for one in seen])) or 1.0
    middle = float(np.mean([one.total for one in seen]))
    better = [
        one._replace(rerank=middle + spread * float(value) - one.total) for one, value in zip(seen, mixed, strict=True)
    ]
    better.sort(key=lambda one: (-one.total, one.segment.document_id))
    known = {one.segment.document_id for one in seen}
    return [*better, *(one for one in ranked if one.segment.document_id not in known)]


def _picture(picture_of: Callable[[Candidate], Image], one: Candidate) -> Image | None:
    try:
        return picture_of(one)
    except UsageError:  # gone or damaged since it was indexed
        return None
