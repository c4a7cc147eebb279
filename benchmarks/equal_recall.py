"""Time at equal recall on text queries: a recipe against its peers, in turns, in one process.

    python benchmarks/equal_recall.py --data synthetic --vectors 100000
    MMSEARCH_TEST_DATA=… python benchmarks/equal_recall.py --data flickr8k --vectors 100000

vector_search.py gives every contender a process of its own; on a shared machine minutes lie between two of them, in
which it may have become half as fast. Here every setting of every contender takes its turn in each of several rounds,
each over all queries one after the other, on one thread. A query's time is the median over the rounds. Between two
settings, recall and time are interpolated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from common.contenders import PEERS, Ours, Search
from common.output import command_line, publish
from common.vectors import DATA, FOLDER, mean_recall, prepare

OURS_SETTINGS = [{"nprobe": nprobe, "k_factor": 5} for nprobe in (8, 12, 16, 20, 24, 32, 48)]
EF = {"hnswlib": (32, 48, 64, 96, 128), "autofaiss": (32, 64, 96, 128, 256)}


def settings_of(name: str) -> list[dict[str, int]]:
    """Those around a recall of 0.95."""
    return OURS_SETTINGS if name == "ivf_pq" else [{"ef": ef} for ef in EF[name]]


def rounds(ways: list[Callable[[], Search]], queries: np.ndarray, count: int) -> np.ndarray:
    """Seconds of each way to search, round and query."""
    took = np.empty((len(ways), count, len(queries)))
    for number in range(count):
        for which, way in enumerate(ways):
            ask = way()
            for i in range(len(queries)):
                start = time.perf_counter()
                ask(queries[i : i + 1])
                took[which, number, i] = time.perf_counter() - start
    return took


def main() -> None:
    """Builds all, asks in turns, prints and writes ``results/equal_recall_DATA_N.json``."""
    parser = command_line(__doc__)
    parser.add_argument("--data", default="synthetic", choices=DATA)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    data = np.load(prepare(options.data, options.vectors, options.queries, [10], options.folder))
    matrix = np.memmap(options.folder / str(data["matrix"]), "<f2", "r").reshape(options.vectors, -1)
    queries, truth = data["texts"], data["text_10"]
    curves: dict[str, list[dict[str, Any]]] = {}
    names, ways = [], []
    for name in ("ivf_pq", *EF):
        built = Ours(matrix, options.folder, 2, name) if name == "ivf_pq" else PEERS[name](matrix, options.folder, 2)
        for setting in settings_of(name):
            names.append((name, setting))
            ways.append(partial(built.search, 10, **setting))
    faiss.omp_set_num_threads(1)
    took = np.median(rounds(ways, queries, options.rounds), axis=1) * 1000
    for (name, setting), way, times in zip(names, ways, took, strict=True):
        ask = way()
        recall = mean_recall([ask(queries[i : i + 1]) for i in range(len(queries))], truth)
        curves.setdefault(name, []).append(
            {"setting": setting, "recall": recall, "p50_ms": float(np.median(times)), "qps": 1000 / times.mean()}
        )
    at = {
        name: float(np.interp(options.recall, [p["recall"] for p in curve], [1000 / p["qps"] for p in curve]))
        for name, curve in curves.items()
    }
    result = {
        "data": DATA[options.data], "vectors": options.vectors, "dim": matrix.shape[1], "recall@10": options.recall,
        "mean_ms_at_this_recall": {name: round(ms, 4) for name, ms in at.items()},
        "qps_of_ivf_pq_against": {name: round(at[name] / at["ivf_pq"], 2) for name in EF},
        "curves": curves,
    }  # fmt: skip
    publish(f"equal_recall_{options.data}_{options.vectors}", result, options)


if __name__ == "__main__":
    main()
