"""Rerankers: (query, candidates) → scores, by a closer look. Importing this package loads no model.

base         the contract
registry     which reranker a name means, and where it lies
second_look  the one that ships: further views of a picture, and the words of the question in them
builtin      by cross-attention, as `mmsearch train --reranker` puts it into the folder of a built-in encoder
blip         image-text matching of BLIP, on transformers
coca         how likely a CoCa of open_clip finds the text as a caption
"""

from mmsearch.models.rerankers.base import Reranker, RerankerSpec
from mmsearch.models.rerankers.registry import open_reranker

__all__ = ["Reranker", "RerankerSpec", "open_reranker"]
