"""Does training inverted lists on text queries help text queries? Recall@10 by share of text in the training sample.

    python benchmarks/out_of_distribution.py

100,000 vectors of synthetic.py, recipe ivf_pq; the text vectors trained on and those asked are different draws.

Text vectors are moved across the modality gap before training. Left where they are, they did far worse: with a share
of 0.1 text queries visited lists without images (recall 0.85 at nprobe 64, against 0.96 without any texts).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from environment import write_result
from synthetic import Source, write_matrix

from mmsearch.recipes import load_recipe
from mmsearch.vector_index import AnnIndex, ExactIndex
from mmsearch.vector_index.tuning import recall_of

VECTORS, QUERIES, SHARES, PROBES = 100_000, 500, (0.0, 0.1, 0.3, 0.6), (16, 64, 256)


def main() -> None:
    """Build once for each share and print and store the recalls."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for building")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    options = parser.parse_args()
    source, recipe = Source(), load_recipe("ivf_pq")
    folder = Path(tempfile.gettempdir()) / "mmsearch-vector-search"
    folder.mkdir(exist_ok=True)
    matrix = write_matrix(folder / f"{VECTORS}.f16", VECTORS, source)
    asked = {"text": source.texts(QUERIES, 0), "image": source.images(QUERIES, 10**6)}
    truth = {kind: ExactIndex(matrix).search(queries, 10) for kind, queries in asked.items()}
    rows = []
    for share in options.shares:
        mixed = replace(recipe, training=replace(recipe.training, text_share=share))
        start = time.perf_counter()
        index = AnnIndex.build(matrix, mixed, text_vectors=source.texts(50_000, 1), threads=options.threads)
        built = time.perf_counter() - start
        for probes in PROBES:
            parameters = {"nprobe": probes, "k_factor": 50}
            row: dict[str, float] = {"text_share": share, "nprobe": probes, "build_s": round(built, 1)}
            for kind, queries in asked.items():
                found = index.search(queries, 10, parameters=parameters)
                row[f"recall_{kind}"] = round(float(np.mean(recall_of(found, truth[kind]))), 4)
            start = time.perf_counter()
            for i in range(100):
                index.search(asked["text"][i : i + 1], 10, parameters=parameters, threads=1)
            row["ms"] = round((time.perf_counter() - start) * 10, 3)
            rows.append(row)
            print(row, flush=True)
    write_result("out_of_distribution", {"vectors": VECTORS, "rows": rows})


if __name__ == "__main__":
    main()
