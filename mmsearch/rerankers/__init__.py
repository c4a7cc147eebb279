"""Rerankers: (query, candidates) → scores, by cross-attention. Importing this package loads no model.

base      the contract
models    which reranker a name means, and where it lies
builtin   in the folder of a built-in encoder, on onnxruntime
blip      image-text matching of BLIP, on transformers
coca      how likely a CoCa of open_clip finds the text as a caption
"""

from mmsearch.rerankers.base import Reranker, RerankerSpec
from mmsearch.rerankers.models import open_reranker

__all__ = ["Reranker", "RerankerSpec", "open_reranker"]
