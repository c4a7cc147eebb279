"""Recall against latency of every way to search, on image and on text queries, side by side.

    python benchmarks/vector_search.py --vectors 100000
    python benchmarks/vector_search.py --vectors 1000000 --only exact pq_scan ivf_pq rclip
    python benchmarks/vector_search.py --tables        (from the results: plots, indexes/README.md, recipes)

Every contender runs in a process of its own, over the same vector file (synthetic.py says how it is made), and is
asked one query at a time on one thread. Recall is recall@k against exact search. Resident memory is that of the
process while it searches, its map of the vector file included; peak memory includes building.

Peers: hnswlib, usearch; autofaiss as its published heuristic chooses; rclip as it searches (all vectors out of
SQLite, a dot product, Python's sort).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import faiss  # noqa: E402
import numpy as np  # noqa: E402
from environment import describe  # noqa: E402
from synthetic import Source, write_matrix  # noqa: E402

from mmsearch.recipes import list_recipes, load_recipe  # noqa: E402
from mmsearch.vector_index import AnnIndex, ExactIndex  # noqa: E402

Search = Callable[[np.ndarray], np.ndarray]
"""One query (1, dim) → rows (k,)."""


class Exact:
    """Every vector, straight from the vector file."""

    settings = [{}]
    bytes_per_vector = 0.0

    def __init__(self, matrix: np.ndarray, folder: Path, threads: int) -> None:
        self._index = ExactIndex(matrix)

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


def prepare(n: int, queries: int, k: int, folder: Path) -> None:
    """Write the vectors, the queries and the exact answers that every contender's process reads."""
    source = Source()
    matrix = write_matrix(folder / f"{n}.f16", n, source)
    texts, images = source.texts(queries, 0), source.images(queries, 10**6)
    exact = ExactIndex(matrix)
    truth = {kind: np.stack([a.rows for a in exact.search(q, k)]) for kind, q in (("t", texts), ("i", images))}
    np.savez(folder / f"{n}.{k}.npz", texts=texts, images=images, text_truth=truth["t"], image_truth=truth["i"])


def measure(name: str, n: int, k: int, folder: Path, threads: int) -> Iterator[dict[str, object]]:
    """Build one contender and yield a row of figures for each of its settings."""
    data = np.load(folder / f"{n}.{k}.npz")
    matrix = np.memmap(folder / f"{n}.f16", dtype="<f2", mode="r").reshape(n, -1)
    start = time.perf_counter()
    contender = Ours(matrix, folder, threads, name) if name in OURS else PEERS[name](matrix, folder, threads)
    built = time.perf_counter() - start
    done: list[tuple[dict[str, int], float]] = []
    for setting in contender.settings:
        if any(_is_more(setting, other) and recall >= 0.9995 for other, recall in done):
            continue  # a cheaper setting found all there is
        search = contender.search(k, **setting)
        search(data["texts"][:1])
        slow = time.perf_counter()
        search(data["texts"][:1])
        slow = time.perf_counter() - slow
        asked = min(len(data["texts"]), max(3, int(20 / slow)))
        took, recall = {}, {}
        for kind in ("text", "image"):
            took[kind], found = _ask(search, data[f"{kind}s"][:asked])
            recall[kind] = _recall(found, data[f"{kind}_truth"][:asked])
        done.append((setting, recall["text"]))
        p50, p95, p99 = np.percentile(took["text"], [50, 95, 99])
        yield {
            "name": name, "vectors": n, "dim": matrix.shape[1], "k": k, "setting": setting, "queries": asked,
            "recall_text": recall["text"], "recall_image": recall["image"],
            "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "qps": 1000 / float(np.mean(took["text"])),
            "build_s": built, "bytes_per_vector": contender.bytes_per_vector,
            "resident_mb": _memory("VmRSS"), "peak_mb": _memory("VmHWM"),
            "load": round(os.getloadavg()[0], 1),
        }  # fmt: skip


def _is_more(setting: dict[str, int], other: dict[str, int]) -> bool:
    return all(setting[key] >= other[key] for key in setting)


def _ask(search: Search, queries: np.ndarray) -> tuple[list[float], list[np.ndarray]]:
    took, found = [], []
    for i in range(len(queries)):
        start = time.perf_counter()
        rows = search(queries[i : i + 1])
        took.append((time.perf_counter() - start) * 1000)
        found.append(rows)
    return took, found


def _recall(found: list[np.ndarray], truth: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(f, t)) / len(t) for f, t in zip(found, truth, strict=True)]))


def facts() -> dict[str, object]:
    """What the figures were measured with: `environment.describe`, the peers' versions, the load of the machine."""
    peers = {name: metadata.version(name) for name in ("hnswlib", "usearch")}
    return {**describe(), "peers": peers, "data": "benchmarks/synthetic.py"}


def _memory(field: str) -> float:
    """Megabytes of this process: ``VmHWM`` (the most it ever had resident) or ``VmRSS`` (now). Linux only."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def main() -> None:
    """Run the contenders, each in its own process, and add their rows to the results of this size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for building")
    parser.add_argument("--only", nargs="+", default=[*PEERS, *OURS], choices=[*PEERS, *OURS])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "mmsearch-vector-search")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--tables", action="store_true", help="only write plots and tables from the results")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tables:
        from vector_search_tables import write_all

        return write_all(options.results)
    if options.child:
        for row in measure(options.child, options.vectors, options.k, options.folder, options.threads):
            print(json.dumps(row), flush=True)
        return None
    options.folder.mkdir(parents=True, exist_ok=True)
    prepare(options.vectors, options.queries, options.k, options.folder)
    path = options.results / f"vector_search_{options.vectors}_k{options.k}.json"
    old = json.loads(path.read_text())["rows"] if path.is_file() else []
    rows = [row for row in old if row["name"] not in options.only]
    for name in options.only:
        print(f"{name} …", flush=True)
        command = [sys.executable, __file__, "--child", name, "--vectors", str(options.vectors)]
        command += ["--k", str(options.k), "--folder", str(options.folder), "--threads", str(options.threads)]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
        rows += [json.loads(line) for line in output.splitlines()]
        path.write_text(json.dumps({"environment": facts(), "rows": rows}, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
