"""Chooses a recipe for an index that grows: exact as long as exact is quick, then what measured best."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mmsearch.core.errors import RecipeError
from mmsearch.store.local.recipes.base import Recipe
from mmsearch.store.local.recipes.reader import list_recipes

QUICK_MS = 20.0
"""Exact search that takes no longer than this needs no help: nobody notices, and it finds everything."""

TRUSTED_RECALL = 0.99
"""A measurement speaks for a recipe only at this recall on text queries, or above."""


def choose(
    vectors: int,
    exact_ms: float,
    *,
    recipes: Sequence[Recipe] | None = None,
    has_gpu: bool = False,
    quick_ms: float = QUICK_MS,
) -> Recipe:
    """The recipe to build for ``vectors`` vectors where exact search takes ``exact_ms`` a query.

    ``exact`` while that is at most ``quick_ms``. Then, of the ``recipes`` (default: the project's own) that
    are meant for this size and can run here, the one with the lowest measured latency at a recall on text
    queries of at least 0.99. Only measurements at one size are compared, the one nearest to ``vectors`` of those
    at which any was made. What is chosen is a candidate: it is used once tuning shows that it pays on this machine
    and these vectors.
    """
    shelf = list_recipes() if recipes is None else recipes
    exact = next((r for r in shelf if r.kind == "exact" and not r.needs_gpu), None)
    if exact is None:
        raise RecipeError("none of the recipes is exact search on the CPU; `auto` starts from one")
    if exact_ms <= quick_ms:
        return exact
    able = [r for r in shelf if r.kind == "ann" and (has_gpu or not r.needs_gpu) and _meant_for(r, vectors)]
    trusted = [(m, r) for r in able for m in r.measured if m.recall_text >= TRUSTED_RECALL and m.vectors]
    if not trusted:
        return exact
    size = min((m.vectors for m, _ in trusted), key=lambda n: abs(math.log(n / vectors)))
    return min(((m.p50_ms, r.name, r) for m, r in trusted if m.vectors == size), key=lambda entry: entry[:2])[2]


def _meant_for(recipe: Recipe, vectors: int) -> bool:
    return recipe.min_vectors <= vectors and (recipe.max_vectors is None or vectors <= recipe.max_vectors)
