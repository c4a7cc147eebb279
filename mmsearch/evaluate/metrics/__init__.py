"""Measures of retrieval and how sure one may be of them. Pure functions of numbers; numpy alone.

ranked_lists      recall@k, hit@k, precision@k, reciprocal rank, average precision, nDCG of one ranked list
two_way           R@k of two matrices of vectors, text→image and image→text
significance      bootstrap intervals, paired tests, the median rank
rank_correlation  Kendall's tau, for agreement with human grades
"""

from mmsearch.evaluate.metrics.rank_correlation import kendall_tau
from mmsearch.evaluate.metrics.ranked_lists import (
    average_precision,
    first_relevant_rank,
    hit_at_k,
    ndcg,
    precision_at_k,
    recall_at_k,
    reciprocal_rank,
)
from mmsearch.evaluate.metrics.significance import (
    Interval,
    RunComparison,
    bootstrap_interval,
    compare_runs,
    median_rank,
    permutation_test,
)
from mmsearch.evaluate.metrics.two_way import Direction, Ties, TwoWayRecall, best_ranks, two_way_recall

__all__ = [
    "RunComparison",
    "Direction",
    "Interval",
    "Ties",
    "TwoWayRecall",
    "average_precision",
    "best_ranks",
    "bootstrap_interval",
    "compare_runs",
    "first_relevant_rank",
    "hit_at_k",
    "kendall_tau",
    "median_rank",
    "ndcg",
    "permutation_test",
    "precision_at_k",
    "recall_at_k",
    "reciprocal_rank",
    "two_way_recall",
]
