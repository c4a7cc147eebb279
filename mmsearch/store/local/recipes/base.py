"""What a recipe is: a named way to build a vector index, as frozen values.

``indexes/README.md`` describes the same words as they stand in a recipe's file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mmsearch.core.errors import RecipeError

Kind = Literal["exact", "ann"]
KINDS: tuple[Kind, ...] = ("exact", "ann")

PARAMETERS = {
    "nprobe": "inverted lists that a query visits",
    "ef_search": "nodes of the graph that a query keeps in view",
    "k_factor": "candidates re-scored exactly, as a multiple of k",
}
"""Every search parameter that a recipe may name, and what it counts: whole numbers, where more finds more."""


@dataclass(frozen=True)
class Parameter:
    """A search parameter: its range ``low`` … ``high``, its ``default``, and the ``grid`` tuning tries."""

    name: str
    high: int
    default: int
    grid: tuple[int, ...]
    low: int = field(default=1, metadata={"least": 1})


@dataclass(frozen=True)
class Training:
    """What building needs to learn from the vectors before it can add them.

    ``lists_per_root``: inverted lists divided by √vectors; it fills ``{lists}`` of the factory string.
    ``max_lists`` (0: no limit): never more lists, because building compares every vector with every list.
    ``points_per_list``: vectors sampled for each list. ``vectors``: vectors sampled where there are no lists.
    ``text_share``: the share of the sample that is drawn from text queries, if any are given.
    """

    lists_per_root: float = 0.0
    max_lists: int = 0
    points_per_list: int = field(default=64, metadata={"least": 39})
    vectors: int = field(default=65_536, metadata={"least": 1})
    text_share: float = 0.0


@dataclass(frozen=True)
class Measured:
    """One measurement of a recipe: recall@10 against exact search, milliseconds on one thread.

    ``parameters`` are the search parameters used; ``bytes_per_vector`` counts the index only, not the vector
    file; ``source`` names the benchmark and the data.
    """

    vectors: int
    dim: int
    recall_text: float
    recall_image: float
    p50_ms: float
    build_s: float
    bytes_per_vector: float
    source: str
    parameters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A named way to build a vector index.

    ``factory`` is a FAISS index factory string, in which ``{lists}`` stands for the number of inverted lists
    and ``{pairs}`` for half the dimension.
    ``min_vectors`` and ``max_vectors`` (``None``: no limit) say for which sizes it is meant. With ``rescore``
    the index only proposes candidates, and their scores are computed again from the vector file.
    """

    name: str
    description: str
    kind: Kind
    factory: str
    min_vectors: int = 0
    max_vectors: int | None = None
    rescore: bool = False
    needs_gpu: bool = False
    training: Training = field(default_factory=Training)
    parameters: tuple[Parameter, ...] = ()
    measured: tuple[Measured, ...] = ()

    def lists(self, vectors: int) -> int:
        """How many inverted lists to make for ``vectors`` vectors: lists_per_root × √vectors, at least 1.

        Never more than one for every 39 vectors, with fewer of which FAISS's k-means warns, and never more than
        ``training.max_lists``.
        """
        wanted = round(self.training.lists_per_root * math.sqrt(vectors))
        if self.training.max_lists:
            wanted = min(wanted, self.training.max_lists)
        return max(1, min(wanted, vectors // 39))

    def factory_for(self, vectors: int, dim: int) -> str:
        """The factory string for ``vectors`` vectors of length ``dim``, with ``{lists}`` and ``{pairs}`` filled in.

        ``{pairs}`` is ``dim`` / 2, for product quantisers that take two numbers at a time; an odd ``dim`` is
        then a `RecipeError`.
        """
        if "{pairs}" in self.factory and dim % 2:
            raise RecipeError(f"recipe {self.name} takes numbers in pairs; {dim} dimensions are odd")
        filled = self.factory.replace("{lists}", str(self.lists(vectors)))
        return filled.replace("{pairs}", str(dim // 2))

    def defaults(self) -> dict[str, int]:
        """The default of every search parameter."""
        return {p.name: p.default for p in self.parameters}

    def check_parameters(self, parameters: Mapping[str, int] | None) -> dict[str, int]:
        """The defaults, overridden by ``parameters``; unknown names, values out of range: `RecipeError`."""
        known = {p.name: p for p in self.parameters}
        for name, value in (parameters or {}).items():
            if name not in known:
                names = ", ".join(sorted(known)) or "none"
                raise RecipeError(f"recipe {self.name} has no search parameter {name!r}; it has {names}")
            if isinstance(value, bool) or not isinstance(value, int):
                raise RecipeError(f"{name} of recipe {self.name} is {value!r}; a whole number is expected")
            if not known[name].low <= value <= known[name].high:
                raise RecipeError(
                    f"{name} of recipe {self.name} is {value}; it lies between {known[name].low} and {known[name].high}"
                )
        return {**self.defaults(), **(parameters or {})}
