"""Recall against latency of every way to search, on image and on text queries, side by side.

    python benchmarks/vector_search.py --vectors 100000
    python benchmarks/vector_search.py --vectors 1000000 --only exact pq_scan ivf_pq rclip
    MMSEARCH_TEST_DATA=… python benchmarks/vector_search.py --data flickr8k --vectors 100000
    python benchmarks/vector_search.py --tables        (from the results: plots, indexes/README.md, recipes)

Every contender (contenders.py) runs in a process of its own, over the same vector file, and is asked one query at a
time on one thread. ``--data synthetic``: synthetic.py says how they are made. ``--data flickr8k``: the vectors of the
Flickr8k images through the built-in encoder, each copied with a random step (large_index.py), asked with the captions
of the dev split and with images after another random step. Recall is recall@k against exact search. Resident memory
is that of the process while it searches, its map of the vector file included; peak memory includes building.

``--clock cpu`` counts processor time instead of wall time, for queries and for building (where it is that of all
threads together): on a machine that others use as well, it is what can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import numpy as np  # noqa: E402
from contenders import OURS, PEERS, Ours, Search  # noqa: E402
from environment import Memory, describe  # noqa: E402
from synthetic import Source, write_matrix  # noqa: E402

from mmsearch.models.encoders import open_encoder  # noqa: E402
from mmsearch.store.local.vector_index import ExactIndex  # noqa: E402

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SECONDS = 4.0
"""What the queries of one kind may take at one setting; with slow contenders fewer are asked, at least 3."""
DATA = {
    "synthetic": "synthetic vectors with a modality gap (benchmarks/synthetic.py)",
    "flickr8k": "Flickr8k through the built-in encoder, replicated with noise (benchmarks/large_index.py)",
}


def prepare(data: str, n: int, queries: int, ks: list[int], folder: Path) -> None:
    """Write the vectors, the queries and the exact answers that every contender's process reads."""
    if data == "synthetic":
        source, path = Source(), folder / f"{data}-{n}.f16"
        matrix = write_matrix(path, n, source)
        texts, images = source.texts(queries, 0), source.images(queries, 10**6)
    else:
        from large_index import flickr8k, replicate

        pictures, captions, _ = flickr8k(Path(os.environ["MMSEARCH_TEST_DATA"]) / "flickr8k", folder)
        path = folder / f"{data}-{n}-{open_encoder('builtin').spec.key}.f16"
        if not path.is_file() or path.stat().st_size != n * pictures.shape[1] * 2:
            replicate(pictures, n, 0.6).tofile(path)
        matrix = np.memmap(path, dtype="<f2", mode="r").reshape(n, -1)
        texts = captions[np.random.default_rng(1).permutation(len(captions))[:queries]]
        images = replicate(pictures, queries, 0.6, seed=1).astype(np.float32)
    truth = {}
    for kind, asked in (("text", texts), ("image", images)):
        rows = np.stack([answer.rows for answer in ExactIndex(matrix).search(asked, max(ks))])
        truth |= {f"{kind}_{k}": rows[:, :k] for k in ks}
    np.savez(folder / f"{data}-{n}.npz", texts=texts, images=images, matrix=path.name, **truth)


def measure(name: str, options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Build one contender and yield a row of figures for each of its settings and each k."""
    n, folder, clock = options.vectors, options.folder, CLOCKS[options.clock]
    data = np.load(folder / f"{options.data}-{n}.npz")
    matrix = np.memmap(folder / str(data["matrix"]), dtype="<f2", mode="r").reshape(n, -1)
    start = clock()
    contender = (
        Ours(matrix, folder, options.threads, name) if name in OURS else PEERS[name](matrix, folder, options.threads)
    )
    built = clock() - start
    for k in options.k:
        done: list[tuple[dict[str, int], float]] = []
        for setting in contender.settings:
            if any(_is_more(setting, other) and recall >= 0.9995 for other, recall in done):
                continue  # a cheaper setting found all there is
            search = contender.search(k, **setting)
            slow = clock()
            search(data["texts"][:1])
            slow = clock() - slow
            asked = min(len(data["texts"]), max(3, int(SECONDS / max(slow, 1e-6))))
            took, recall = {}, {}
            for kind in ("text", "image"):
                took[kind], found = _ask(search, data[f"{kind}s"][:asked], clock)
                recall[kind] = mean_recall(found, data[f"{kind}_{k}"][:asked])
            done.append((setting, recall["text"]))
            p50, p95, p99 = np.percentile(took["text"], [50, 95, 99])
            now = Memory.now()
            yield {
                "name": name, "vectors": n, "dim": matrix.shape[1], "k": k, "setting": setting, "queries": asked,
                "recall_text": recall["text"], "recall_image": recall["image"],
                "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "qps": 1000 / float(np.mean(took["text"])),
                "image_p50_ms": float(np.median(took["image"])),
                "build_s": built, "bytes_per_vector": contender.bytes_per_vector,
                "resident_mb": now.resident, "allocated_mb": now.allocated, "peak_mb": Memory.peak(),
                "clock": options.clock, "load": round(os.getloadavg()[0], 1),
            }  # fmt: skip


def _is_more(setting: dict[str, int], other: dict[str, int]) -> bool:
    return all(setting[key] >= other[key] for key in setting)


def _ask(search: Search, queries: np.ndarray, clock: object) -> tuple[list[float], list[np.ndarray]]:
    took, found = [], []
    for i in range(len(queries)):
        start = clock()  # type: ignore[operator]
        rows = search(queries[i : i + 1])
        took.append((clock() - start) * 1000)  # type: ignore[operator]
        found.append(rows)
    return took, found


def mean_recall(found: list[np.ndarray], truth: np.ndarray) -> float:
    """Of the rows found for each query, against the true ones."""
    return float(np.mean([len(np.intersect1d(f, t)) / len(t) for f, t in zip(found, truth, strict=True)]))


def facts(data: str) -> dict[str, object]:
    """What the figures were measured with: `environment.describe`, the peers' versions, the data."""
    peers = {name: metadata.version(name) for name in ("hnswlib", "usearch")}
    return {**describe(), "simd": widest_vectors(), "peers": peers, "data": DATA[data]}


def widest_vectors() -> str | None:
    """The widest vector instructions of this processor, which decide how fast codes are scanned; Linux only."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return None
    return next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), None)


def main() -> None:
    """Run the contenders, each in its own process, and add their rows to the results of this size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synthetic", choices=DATA)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for building")
    parser.add_argument("--clock", default="wall", choices=CLOCKS)
    parser.add_argument("--only", nargs="+", default=[*PEERS, *OURS], choices=[*PEERS, *OURS])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "mmsearch-vector-search")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--tables", action="store_true", help="only write plots and tables from the results")
    parser.add_argument("--note", default="", help="a sentence that the tables say beside the figures")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tables:
        from vector_search_tables import write_all

        return write_all(options.results)
    if options.child:
        for row in measure(options.child, options):
            print(json.dumps(row), flush=True)
        return None
    options.folder.mkdir(parents=True, exist_ok=True)
    prepare(options.data, options.vectors, options.queries, options.k, options.folder)
    path = options.results / f"vector_search_{options.data}_{options.vectors}.json"
    old = json.loads(path.read_text())["rows"] if path.is_file() else []
    rows = [row for row in old if row["name"] not in options.only]
    for name in options.only:
        print(f"{name} …", flush=True)
        command = [sys.executable, __file__, *sys.argv[1:], "--child", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"{name} ended with {done.returncode}; its settings up to there are kept", flush=True)
        rows += [json.loads(line) for line in done.stdout.splitlines()]
        content = {"environment": {**facts(options.data), "note": options.note}, "rows": rows}
        path.write_text(json.dumps(content, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
