"""Search on a GPU, where faiss-gpu is installed and finds one: exact, inverted lists, or a CAGRA graph.

The GPU only proposes rows; their scores come from the vector file, as on the CPU, so answers agree to the last
bit wherever the same rows are proposed. FAISS takes no id selectors there: filtered queries go to the CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import RecipeError
from mmsearch.store.local.recipes.base import Recipe
from mmsearch.store.local.vector_index.ann import MIN_K
from mmsearch.store.local.vector_index.ann_building import ADD_BLOCK
from mmsearch.store.local.vector_index.base import (
    Neighbours,
    allowed_rows,
    as_matrix,
    best_first,
    check_k,
    check_queries,
    gather,
    nothing,
)
from mmsearch.store.local.vector_index.exact import ExactIndex

MOST_CANDIDATES = 2048
"""The largest number of neighbours that FAISS selects on a GPU; more go to the CPU."""


def gpu_count() -> int:
    """How many GPUs this FAISS can use: 0 for faiss-cpu, and for faiss-gpu on a machine without one."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


class GpuIndex:
    """All rows of ``matrix``, float16 (n, dim), resident on one GPU in the form that ``recipe`` names.

    The factory strings are ``Flat`` (exact, kept as float16), ``CAGRA`` (needs faiss-gpu-cuvs) and any that
    `faiss.index_cpu_to_gpu` accepts. Raises `RecipeError` where there is no GPU or FAISS cannot build it.
    Searching is safe from several threads; they take turns, as GPU memory for one search is shared.
    """

    def __init__(self, matrix: npt.NDArray[np.float16], recipe: Recipe, *, device: int = 0) -> None:
        if not recipe.needs_gpu:
            raise RecipeError(f"recipe {recipe.name} is made for the CPU")
        if device >= gpu_count():
            raise RecipeError(
                f"recipe {recipe.name} needs GPU {device}, FAISS finds {gpu_count()}; install faiss-gpu in place "
                "of faiss-cpu on a machine with one, or take another recipe"
            )
        self._matrix = as_matrix(matrix)
        self._exact = ExactIndex(self._matrix)
        self._turn = threading.Lock()
        self.recipe = recipe
        try:
            self._core = self._build(device)
        except RuntimeError as error:
            raise RecipeError(f"FAISS cannot build recipe {recipe.name} on GPU {device}: {error}") from error

    def _build(self, device: int) -> Any:
        gpu: Any = faiss  # the names below exist in GPU builds only
        n, dim = self._matrix.shape
        self._resources = gpu.StandardGpuResources()
        if self.recipe.factory == "Flat":
            config = gpu.GpuIndexFlatConfig()
            config.device, config.useFloat16 = device, True
            return self._filled(gpu.GpuIndexFlat(self._resources, dim, faiss.METRIC_INNER_PRODUCT, config))
        if self.recipe.factory == "CAGRA":
            if not hasattr(gpu, "GpuIndexCagra"):
                raise RecipeError(f"recipe {self.recipe.name} needs faiss-gpu-cuvs: this FAISS has no CAGRA")
            config = gpu.GpuIndexCagraConfig()
            config.device = device
            # Between vectors of length 1, L2 puts neighbours in the same order as the inner product does.
            core = gpu.GpuIndexCagra(self._resources, dim, faiss.METRIC_L2, config)
            core.train(self._matrix.astype(np.float32))  # CAGRA builds its graph over what it trains on
            return core
        empty = faiss.index_factory(dim, self.recipe.factory_for(n, dim), faiss.METRIC_INNER_PRODUCT)
        core = gpu.index_cpu_to_gpu(self._resources, device, empty)
        training = self.recipe.training
        size = min(n, max(self.recipe.lists(n) * training.points_per_list, training.vectors))
        rows = np.sort(np.random.default_rng(0).choice(n, size, replace=False))
        core.train(gather(self._matrix, rows).astype(np.float32))
        return self._filled(core)

    def _filled(self, core: Any) -> Any:
        for low in range(0, len(self._matrix), ADD_BLOCK):
            core.add(self._matrix[low : low + ADD_BLOCK].astype(np.float32))
        return core

    def __len__(self) -> int:
        return len(self._matrix)

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return int(self._matrix.shape[1])

    def search(
        self,
        queries: npt.ArrayLike,
        k: int,
        *,
        parameters: Mapping[str, int] | None = None,
        only: npt.ArrayLike | None = None,
        without: npt.ArrayLike | None = None,
        threads: int | None = None,
    ) -> list[Neighbours]:
        """As `AnnIndex.search`; ``threads`` counts where the CPU answers: filters, large ``k``."""
        checked, k = check_queries(queries, self.dim), check_k(k)
        settings = self.recipe.check_parameters(parameters)
        allowed = allowed_rows(len(self), only, without)
        if not len(checked) or not allowed.count:
            return nothing(len(checked))
        wanted = min(len(self), max(k, MIN_K) * settings.get("k_factor", 1))
        if not allowed.everything or wanted > MOST_CANDIDATES:
            return self._exact.search_allowed(checked, k, allowed, threads)
        with self._turn:
            proposed = self._core.search(checked, wanted, params=self._search_parameters(settings, wanted))[1]
        answers = []
        for i, candidates in enumerate(proposed):
            rows = np.unique(candidates[candidates >= 0])
            if len(rows) < min(k, len(self)):
                answers += self._exact.search_allowed(checked[i : i + 1], k, allowed, threads)
            else:
                answers.append(best_first(self._exact.score(checked[i], self._exact.gather(rows)), rows, k))
        return answers

    def _search_parameters(self, settings: Mapping[str, int], wanted: int) -> Any:
        make: Any = faiss
        if "nprobe" in settings:
            return make.SearchParametersIVF(nprobe=min(settings["nprobe"], self.recipe.lists(len(self))))
        if self.recipe.factory == "CAGRA":  # keeps at least as many in view as it is to return
            return make.SearchParametersCagra(itopk_size=max(settings["ef_search"], wanted))
        return None
