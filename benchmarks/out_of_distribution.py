"""What helps text queries, whose vectors lie outside the distribution of the indexed ones: two things tried.

    python benchmarks/out_of_distribution.py

100,000 vectors of common/vectors.py; the text vectors trained on and those searched for are different draws.

- Text vectors in the training of inverted lists (recipe ivf_pq): recall@10 by their share of the training sample. They
  are moved across the modality gap before training. Left where they are, they did far worse: with a share of 0.1 text
  queries visited lists without images (recall 0.85 at nprobe 64, against 0.96 without any texts).
- Spill: every vector in its two nearest lists instead of one, as SOAR does it (Sun et al. 2023). Recall by the share
  of all stored vectors that a query scans, which is what it costs; a vector that comes twice counts once.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

import faiss
import numpy as np
from common.output import command_line, publish
from common.vectors import FOLDER, Source, write_matrix

from mmsearch.store.local.recipes import load_recipe
from mmsearch.store.local.vector_index import AnnIndex, ExactIndex
from mmsearch.store.local.vector_index.tuning import recall_of

VECTORS, QUERIES, SHARES, PROBES = 100_000, 500, (0.0, 0.1, 0.3, 0.6), (16, 64, 256)


def spill(matrix: np.ndarray, queries_of: dict[str, np.ndarray], truth: dict[str, list]) -> list[dict[str, float]]:
    """Recall@10 over the rows in the visited lists, with each vector in one list or in two."""
    lists = load_recipe("ivf_pq").lists(len(matrix))
    rows = np.sort(np.random.default_rng(0).choice(len(matrix), 64 * lists, replace=False))
    kmeans = faiss.Kmeans(matrix.shape[1], lists, niter=10, spherical=True, seed=1, max_points_per_centroid=64)
    kmeans.train(matrix[rows].astype(np.float32))
    nearest = np.concatenate(
        [kmeans.index.search(matrix[i : i + 10_000].astype(np.float32), 2)[1] for i in range(0, len(matrix), 10_000)]
    )
    sizes = np.bincount(nearest[:, 0], minlength=lists), np.bincount(nearest.ravel(), minlength=lists)
    found = []
    for copies in (1, 2):
        for probes in (4, 8, 16, 32, 64, 128):
            row: dict[str, float] = {"lists_of_a_vector": copies, "nprobe": probes}
            for kind, queries in queries_of.items():
                visited = kmeans.index.search(queries, probes)[1]
                hits = [
                    np.isin(nearest[t.rows, :copies], lists_seen).any(axis=1).mean()
                    for t, lists_seen in zip(truth[kind], visited, strict=True)
                ]
                row[f"recall_{kind}"] = round(float(np.mean(hits)), 4)
                row[f"scanned_{kind}"] = round(float(sizes[copies - 1][visited].sum(axis=1).mean() / len(matrix)), 4)
            found.append(row)
            print(row, flush=True)
    return found


def main() -> None:
    """Run both, print and store the recalls."""
    parser = command_line(__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for building")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    options = parser.parse_args()
    source, recipe = Source(), load_recipe("ivf_pq")
    FOLDER.mkdir(exist_ok=True)
    matrix = write_matrix(FOLDER / f"synthetic-{VECTORS}.f16", VECTORS, source)
    queries_of = {"text": source.texts(QUERIES, 0), "image": source.images(QUERIES, 10**6)}
    truth = {kind: ExactIndex(matrix).search(queries, 10) for kind, queries in queries_of.items()}
    spilled = spill(matrix, queries_of, truth)
    rows = []
    for share in options.shares:
        mixed = replace(recipe, training=replace(recipe.training, text_share=share))
        start = time.perf_counter()
        index = AnnIndex.build(matrix, mixed, text_vectors=source.texts(50_000, 1), threads=options.threads)
        built = time.perf_counter() - start
        for probes in PROBES:
            parameters = {"nprobe": probes, "k_factor": 50}
            row: dict[str, float] = {"text_share": share, "nprobe": probes, "build_s": round(built, 1)}
            for kind, queries in queries_of.items():
                found = index.search(queries, 10, parameters=parameters)
                row[f"recall_{kind}"] = round(float(np.mean(recall_of(found, truth[kind]))), 4)
            start = time.perf_counter()
            for i in range(100):
                index.search(queries_of["text"][i : i + 1], 10, parameters=parameters, threads=1)
            row["ms"] = round((time.perf_counter() - start) * 10, 3)
            rows.append(row)
            print(row, flush=True)
    publish("out_of_distribution", {"vectors": VECTORS, "rows": rows, "spill": spilled}, options)


if __name__ == "__main__":
    main()
