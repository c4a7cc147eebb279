"""The vectors of one space, ready to be searched: through a vector index where one was built, else exactly."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy.typing as npt

from mmsearch.core.errors import IndexDamaged, RecipeError
from mmsearch.store.local.catalogue import Space
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.files.codes import Codes
from mmsearch.store.local.recipes import load_recipe
from mmsearch.store.local.vector_index import AnnIndex, ExactIndex, Neighbours, QueryKind, index_class

LOG = logging.getLogger("mmsearch")
FAR = 10
"""At one setting, `ivf_pq` and `pq_scan` find the 100 nearest about as well as the 10 nearest (at most 0.025 worse,
`hnsw` 0.07; `benchmarks/vector_search.py`), and a query for ten documents wants 44 rows."""


@dataclass(frozen=True)
class BuiltIndex:
    """What the manifest says of the vector index in use.

    ``file`` and ``recipe_file`` lie in the index directory; ``tuned`` has the search parameters, the measured
    recall and the latency for each kind of query (`mmsearch.store.local.vector_index.Tuned` as plain values).
    """

    file: str
    recipe_file: str
    recipe: str
    space: str
    rows: int
    tuned: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, index: IndexDirectory) -> BuiltIndex | None:
        """The one that the manifest names; ``None`` where searching is exact."""
        built = index.manifest.vector_index
        return None if built is None else cls(**built)


class Vectors:
    """Searches the committed rows of a space. Any number of threads may search at once."""

    def __init__(self, index: IndexDirectory, space: Space) -> None:
        matrix = self.matrix = index.matrix(space)
        """All committed rows, (rows, dim) float16, mapped; who reads rows beside a search takes these: a second map
        of the file would count its pages twice."""
        codes = index.codes(space)
        self._exact = ExactIndex(matrix, codes)
        built = BuiltIndex.of(index)
        self._built = None if built is None or built.space != space.spec.key else built
        self._opening: Future[AnnIndex | None] | None = None
        if self._built is not None:
            # Reading it takes longer than all else here: the query is encoded meanwhile.
            pool = ThreadPoolExecutor(1, thread_name_prefix="mmsearch-open")
            self._opening = pool.submit(_open_built, index.path, self._built, matrix, codes)
            pool.shutdown(wait=False)

    @property
    def _ann(self) -> AnnIndex | None:
        """The vector index, once it is open; `None` where searching is exact."""
        return None if self._opening is None else self._opening.result()

    @property
    def recipe(self) -> str:
        """The name of the recipe in use: ``exact`` too where the vector index cannot be opened here."""
        return "exact" if self._ann is None or self._built is None else self._built.recipe

    def search(
        self,
        queries: npt.ArrayLike,
        k: int,
        *,
        kind: QueryKind = "text",
        only: npt.ArrayLike | None = None,
        without: npt.ArrayLike | None = None,
        threads: int | None = None,
    ) -> list[Neighbours]:
        """The ``k`` best rows for each of ``queries``, float32 (q, dim), with the parameters tuned for ``kind``.

        See `vector_index.ExactIndex.search`. For more than `FAR` times the rows that the parameters were
        tuned for, it searches exactly: a graph or a list that was set for 10 neighbours misses many of 1,000.
        """
        ann = self._ann
        if ann is None or self._built is None or k > self.reach(kind):
            return self._exact.search(queries, k, only=only, without=without, threads=threads)
        parameters = {name: int(value) for name, value in self._built.tuned[kind]["parameters"].items()}
        return ann.search(queries, k, parameters=parameters, only=only, without=without, threads=threads)

    def reach(self, kind: QueryKind) -> int:
        """How many rows at most are searched for in the vector index; 0 where it serves no queries of this kind."""
        tuned = None if self._ann is None or self._built is None else self._built.tuned.get(kind)
        return 0 if tuned is None else FAR * max(int(tuned["k"]), 10)


def _open_built(folder: Path, built: BuiltIndex, matrix: Any, codes: Codes | None) -> AnnIndex | None:
    """The vector index in an index directory. It is a cache: damaged, of other vectors, or for a GPU that is not there
    now, searching is exact."""
    try:
        recipe = load_recipe(folder / built.recipe_file)
        return index_class(recipe).open(folder / built.file, recipe, matrix, codes=codes)
    except IndexDamaged:
        return None
    except RecipeError as error:
        _say_once(f"searching exactly, on the CPU: {error}")
        return None


@cache
def _say_once(message: str) -> None:
    """An index is opened anew after every change; its log need not say the same each time."""
    LOG.warning(message)
