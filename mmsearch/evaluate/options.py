"""How to measure."""

from __future__ import annotations

from dataclasses import dataclass

from mmsearch.core.options import Options, option
from mmsearch.query.options import ALPHA


@dataclass(frozen=True)
class EvaluationOptions(Options):
    """``alpha``: 0 is for cosines alone. ``depth``: places looked at. ``samples``: of the bootstrap. ``batch``: queries
    scored at once. ``rerank_questions``: so many are run with and without a reranker, where one is given.
    """

    alpha: float = option(ALPHA, "Strength of the hubness correction, 0 for none.", flag="--hubness", least=0)
    depth: int = option(1000, "Places looked at.", least=1)
    samples: int = option(2000, "Samples of the bootstrap.", least=1)
    batch: int = option(256, "Queries scored at once.", least=1)
    rerank_questions: int = option(200, "How many queries are run for that.", flag="--rerank-questions", least=1)
