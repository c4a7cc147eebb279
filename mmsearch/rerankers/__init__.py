"""Rerankers: (query, candidates) → scores, by cross-attention. Importing this package loads no model."""

from mmsearch.rerankers.base import Reranker, RerankerSpec

__all__ = ["Reranker", "RerankerSpec"]
