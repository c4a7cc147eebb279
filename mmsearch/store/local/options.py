"""How to build a vector index."""

from __future__ import annotations

from dataclasses import dataclass

from mmsearch.core.options import Options, option


@dataclass(frozen=True)
class OptimizeOptions(Options):
    """``recall``: recall@``k`` to reach on held-out text queries. ``compact`` rewrites the vector file."""

    recipe: str = option("auto", "auto, a name from `mmsearch recipes`, or a TOML file.", flag="--recipe")
    recall: float = option(
        0.95, "Recall on text queries to reach, above 0 and up to 1.", flag="--recall", above=0, most=1
    )
    k: int = option(10, "Recall among how many results.", flag="-k --k", least=1)
    compact: bool = option(False, "Also give back the space of removed documents.", flag="--compact")
