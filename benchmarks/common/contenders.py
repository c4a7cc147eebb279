"""The ways to search vectors that vector_search.py compares: this project's recipes and its peers.

Peers: hnswlib, usearch; autofaiss as its published heuristic chooses; rclip as it searches (all vectors out of
SQLite, a dot product, Python's sort). Each is built over a mapped float16 matrix (n, dim) of rows of length 1.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import faiss
import numpy as np

from mmsearch.store.local.files.codes import CodeFile
from mmsearch.store.local.recipes import list_recipes, load_recipe
from mmsearch.store.local.vector_index import AnnIndex, ExactIndex

Search = Callable[[np.ndarray], np.ndarray]
"""One query (1, dim) → rows (k,)."""


class Exact:
    """Every vector, by its code first."""

    settings = [{}]

    def __init__(self, matrix: np.ndarray, folder: Path, threads: int) -> None:
        codes = CodeFile(folder / "exact.u8", matrix.shape[1])
        codes.path.unlink(missing_ok=True)
        writing = get_context("fork").Process(target=codes.complete, args=(matrix,))  # whose memory is not of a search
        writing.start()
        writing.join()
        self.bytes_per_vector = codes.bytes_on_disk() / len(matrix)
        self._index = ExactIndex(matrix, codes.map(len(matrix)))

    def search(self, k: int, **_: int) -> Search:
        """Search for ``k`` with these settings."""
        return lambda q: self._index.search(q, k, threads=1)[0].rows


class Ours:
    """One of the project's recipes: built, saved, opened mapped."""

    def __init__(self, matrix: np.ndarray, folder: Path, threads: int, name: str = "") -> None:
        recipe = load_recipe(name)
        path = folder / f"{name}.faiss"
        AnnIndex.build(matrix, recipe, threads=threads).save(path)
        self.bytes_per_vector = path.stat().st_size / len(matrix)
        self._index = AnnIndex.open(path, recipe, matrix)
        names, grids = [p.name for p in recipe.parameters], [p.grid for p in recipe.parameters]
        self.settings = [dict(zip(names, values, strict=True)) for values in itertools.product(*grids)]

    def search(self, k: int, **parameters: int) -> Search:
        """Search for ``k`` with these settings."""
        return lambda q: self._index.search(q, k, parameters=parameters, threads=1)[0].rows


class Hnswlib:
    """hnswlib with its usual M 16, efConstruction 200."""

    settings = [{"ef": ef} for ef in (16, 32, 64, 128, 256, 512, 1024)]

    def __init__(self, matrix: np.ndarray, folder: Path, threads: int) -> None:
        import hnswlib

        self._index = hnswlib.Index("ip", matrix.shape[1])
        self._index.init_index(len(matrix), M=16, ef_construction=200)
        self._index.set_num_threads(threads)
        for low in range(0, len(matrix), 50_000):
            self._index.add_items(matrix[low : low + 50_000].astype(np.float32))
        self._index.set_num_threads(1)
        self.bytes_per_vector = self._index.index_file_size() / len(matrix)

    def search(self, k: int, ef: int = 0) -> Search:
        """Search for ``k`` with these settings."""
        self._index.set_ef(max(ef, k))
        return lambda q: self._index.knn_query(q, k)[0][0]


class Usearch:
    """usearch with float16 vectors and its defaults."""

    settings = [{"ef": ef} for ef in (16, 32, 64, 128, 256, 512, 1024)]

    def __init__(self, matrix: np.ndarray, folder: Path, threads: int) -> None:
        from usearch.index import Index

        self._index = Index(ndim=matrix.shape[1], metric="ip", dtype="f16")
        self._index.add(np.arange(len(matrix)), np.asarray(matrix), threads=threads)
        self.bytes_per_vector = self._index.serialized_length / len(matrix)

    def search(self, k: int, ef: int = 0) -> Search:
        """Search for ``k`` with these settings."""
        self._index.expansion_search = max(ef, k)
        return lambda q: self._index.search(q[0], k, threads=1).keys


class Autofaiss:
    """autofaiss 2.18's choice (external/optimize.py) with a budget of 4 GB: HNSW32 from 10,000 vectors up."""

    settings = [{"ef": ef} for ef in (16, 32, 64, 128, 256, 512, 1024)]

    def __init__(self, matrix: np.ndarray, folder: Path, threads: int) -> None:
        n, dim = matrix.shape
        links = min(32, int((4e9 / (4 * n) - dim) / 2))
        if n < 10_000 or links < 8:
            raise SystemExit("autofaiss would choose another index at this size")
        faiss.omp_set_num_threads(threads)
        self._index = faiss.index_factory(dim, f"HNSW{links}", faiss.METRIC_INNER_PRODUCT)
        for low in range(0, n, 50_000):
            self._index.add(matrix[low : low + 50_000].astype(np.float32))
        faiss.omp_set_num_threads(1)
        self.bytes_per_vector = dim * 4 + links * 2 * 4

    def search(self, k: int, ef: int = 0) -> Search:
        """Search for ``k`` with these settings."""
        parameters = faiss.SearchParametersHNSW(efSearch=max(ef, k))
        return lambda q: self._index.search(q, k, params=parameters)[1][0]


class Rclip:
    """rclip's search: read every vector from SQLite, one dot product, sort all pairs in Python."""

    settings = [{}]

    def __init__(self, matrix: np.ndarray, folder: Path, threads: int) -> None:
        path = folder / "rclip.sqlite3"
        path.unlink(missing_ok=True)
        self._db = sqlite3.connect(path)
        self._db.execute(
            "CREATE TABLE images (id INTEGER PRIMARY KEY, deleted BOOLEAN, filepath TEXT UNIQUE, vector BLOB)"
        )
        rows = ((i, f"/photos/{i // 1000}/{i}.jpg", v.astype(np.float32).tobytes()) for i, v in enumerate(matrix))
        self._db.executemany("INSERT INTO images VALUES (?, NULL, ?, ?)", rows)
        self._db.commit()
        self.bytes_per_vector = path.stat().st_size / len(matrix)

    def search(self, k: int) -> Search:
        """Search for ``k`` with these settings."""

        def answer(query: np.ndarray) -> np.ndarray:
            paths, vectors = [], []
            for row in self._db.execute(
                "SELECT filepath, vector FROM images WHERE filepath LIKE ? AND deleted IS NULL", ("/photos/%",)
            ):
                paths.append(row[0])
                vectors.append(np.frombuffer(row[1], np.float32))
            scores = query @ np.stack(vectors).T
            ranked = sorted(zip(scores[0], range(len(paths)), strict=True), key=lambda pair: pair[0], reverse=True)
            return np.array([row for _, row in ranked[:k]])

        return answer


PEERS = {"exact": Exact, "hnswlib": Hnswlib, "usearch": Usearch, "autofaiss": Autofaiss, "rclip": Rclip}
OURS = [r.name for r in list_recipes() if r.kind == "ann" and not r.needs_gpu]
