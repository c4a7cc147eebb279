"""What to answer with."""

from __future__ import annotations

from dataclasses import dataclass

from mmsearch.core.errors import UsageError
from mmsearch.core.modalities import check_names
from mmsearch.core.types import Modality

NOTHING_BELOW = 0.25
"""The relevance below which the command line answers that nothing matches well. Chosen so that about one true hit in
20 is lost with the built-in encoder (benchmarks/query_quality.py)."""

ALPHA = 0.5
"""The strength of the hubness correction. With the built-in encoder, captions find most by 0.6 and names lose nothing
(Flickr8k dev; benchmarks/query_quality.py)."""


@dataclass(frozen=True)
class SearchOptions:
    """What to answer with.

    ``k``: how many documents. ``modalities``: of which kinds; ``None`` means those that a ``type:`` of the
    question names, else images and videos, because in one list text passages would win over any image: two
    texts always lie closer than a text and an image.

    ``min_relevance`` leaves out hits below it, 0 to 1, but none whose relevance is not known. ``nothing_below``:
    when neither the best hit nor the first five together reach this relevance, the answer is empty. ``collapse``
    folds near-duplicates into the best of them. ``hubness``: how much of a picture's mean similarity to its nearest
    captions is taken off its score (``alpha`` of NNN), weighed by `hubness.weights`; where an image
    asks for texts, of a text's mean similarity to its nearest photos. ``words``: how many standard deviations of the
    question's scores a document rises whose path, caption or text has all its words.

    ``reranker`` names one (see `rerankers.open_reranker`) that puts the first ``rerank_depth`` answers to
    questions in words into a better order, in ``rerank_budget_s`` seconds a question at most (``None``: as long as
    it takes). The time that it takes to open one, once for an open index, does not count.
    """

    k: int = 10
    modalities: tuple[Modality, ...] | None = None
    min_relevance: float | None = None
    nothing_below: float | None = None
    collapse: bool = False
    hubness: float = ALPHA
    words: float = 6.0
    reranker: str | None = None
    rerank_depth: int = 50
    rerank_budget_s: float | None = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"k must be at least 1, got {self.k}")
        check_names(self.modalities or ())
        for name in ("min_relevance", "nothing_below"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"{name} is a relevance between 0 and 1, got {value}")
        if self.rerank_depth < 1 or (self.rerank_budget_s is not None and self.rerank_budget_s < 0):
            raise UsageError(
                f"rerank_depth must be at least 1 and the budget not negative, got {self.rerank_depth} and "
                f"{self.rerank_budget_s} s"
            )
        if not (self.hubness >= 0 and self.words >= 0):
            raise UsageError(f"hubness and words must not be negative, got {self.hubness} and {self.words}")
