"""Do RaBitQ codes of more than one bit a dimension find what one bit misses, and at what price?

    python benchmarks/rabitq_bits.py --vectors 100000

Every factory is scanned in full, the best are scored again from the float16 vectors, as the recipes `rabitq` and
`pq_scan` do it. Processor time of one thread, so that it can be measured on a machine that others use. Data of
common/vectors.py.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from common.output import command_line, publish
from common.vectors import FOLDER, Source, write_matrix

from mmsearch.store.local.vector_index import ExactIndex

FACTORIES = ("RaBitQ", "RaBitQfs", "RaBitQ2", "RaBitQfs2", "RaBitQ4", "RaBitQfs4", "PQ256x4fs")
K, FACTORS = 10, (2, 5, 10, 20, 50, 100, 200, 500)
ENOUGH = 0.999


def measure(factory: str, matrix: np.ndarray, sets: dict[str, np.ndarray], truth: dict[str, list[np.ndarray]]) -> Any:
    """Rows of figures, one for each number of candidates, until text queries have found enough."""
    exact = ExactIndex(matrix)
    started = time.process_time()
    index = faiss.index_factory(matrix.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    sample = np.sort(np.random.default_rng(0).choice(len(matrix), min(len(matrix), 16_384), replace=False))
    index.train(matrix[sample].astype(np.float32))
    for low in range(0, len(matrix), 16_384):
        index.add(matrix[low : low + 16_384].astype(np.float32))
    built = time.process_time() - started
    for factor in FACTORS:
        row: dict[str, Any] = {"factory": factory, "k_factor": factor, "build_cpu_s": round(built, 1),
                               "bytes_per_vector": faiss.downcast_index(index).sa_code_size()}  # fmt: skip
        for kind, queries in sets.items():
            took, found = [], []
            for query, true in zip(queries, truth[kind], strict=True):
                started = time.process_time()
                rows = np.sort(index.search(query[None], K * factor)[1][0])
                rows = rows[rows >= 0]
                best = rows[np.argsort(-exact.score(query, exact.gather(rows)))[:K]]
                took.append(1000 * (time.process_time() - started))
                found.append(len(np.intersect1d(best, true)) / K)
            row |= {
                f"recall_{kind}": round(float(np.mean(found)), 4),
                f"{kind}_cpu_ms": round(float(np.median(took)), 2),
            }
        print(row, flush=True)
        yield row
        if row["recall_text"] >= ENOUGH:
            return


def main() -> None:
    """Runs it and writes ``results/rabitq_bits_N.json``."""
    parser = command_line(__doc__)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    source = Source()
    matrix = write_matrix(options.folder / f"synthetic-{options.vectors}.f16", options.vectors, source)
    sets = {"text": source.texts(options.queries, 0), "image": source.images(options.queries, 10**6)}
    truth = {kind: [a.rows for a in ExactIndex(matrix).search(rows, K, threads=1)] for kind, rows in sets.items()}
    rows = [row for factory in FACTORIES for row in measure(factory, matrix, sets, truth)]
    figures = {"vectors": options.vectors, "dim": matrix.shape[1], "rows": rows}
    publish(f"rabitq_bits_{options.vectors}", figures, options)


if __name__ == "__main__":
    main()
