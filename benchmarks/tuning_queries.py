"""Are the queries that `optimize` tunes on as hard as those that people ask?

    python benchmarks/tuning_queries.py --vectors 1000000
    MMSEARCH_TEST_DATA=… python benchmarks/tuning_queries.py --data flickr8k --vectors 100000

For some settings of some recipes: recall@10 of fresh text queries, and of the two sets of text queries that
`optimize` asks, generic captions and captions composed for what the index holds. What it reports is the lower of the
two; the closer that is to the recall of fresh queries, the better. Data as in vector_search.py: synthetic, where
generic captions are another draw of the fresh queries, or Flickr8k, where they are the shipped captions and the fresh
ones those of its dev split.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from common.output import command_line, publish
from common.vectors import FOLDER, Source, flickr8k, replicate, write_matrix

from mmsearch import open_encoder
from mmsearch.query.calibrate.caption_bank import bank_vectors, generic_captions
from mmsearch.store.local.optimize import _query_sets
from mmsearch.store.local.recipes import load_recipe
from mmsearch.store.local.vector_index import AnnIndex, ExactIndex
from mmsearch.store.local.vector_index.tuning import recall_of

SETTINGS = {
    "ivf_pq": [
        {"nprobe": lists, "k_factor": factor}
        for lists, factor in ((16, 20), (32, 20), (64, 10), (64, 50), (128, 20), (256, 20), (256, 50), (512, 50))
    ],
    "pq_scan": [{"k_factor": factor} for factor in (5, 10, 20, 50)],
}


def vectors(data: str, n: int, folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image vectors (n, dim) float16, generic captions and fresh text queries, each (m, dim) float32."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{data}-{n}.f16"
    if data == "synthetic":
        source = Source()
        return write_matrix(path, n, source), source.texts(4000, 7), source.texts(600, 0)
    pictures, captions, _ = flickr8k(folder)
    if not path.is_file() or path.stat().st_size != n * pictures.shape[1] * 2:
        replicate(pictures, n, 0.6).tofile(path)
    fresh = captions[np.random.default_rng(1).permutation(len(captions))[:600]]
    generic = bank_vectors(open_encoder("builtin"), generic_captions()).astype(np.float32)
    return np.memmap(path, dtype="<f2", mode="r").reshape(n, -1), generic, fresh


def main() -> None:
    """Runs it, prints the rows and writes ``results/tuning_queries_DATA_N.json``."""
    parser = command_line(__doc__)
    parser.add_argument("--data", default="synthetic", choices=("synthetic", "flickr8k"))
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    matrix, captions, fresh = vectors(options.data, options.vectors, options.folder)
    composed, generic = _query_sets(captions, matrix, captions[:0])
    sets = {"fresh": fresh, "generic": generic, "composed": composed}
    exact = ExactIndex(matrix)
    truth = {name: exact.search(queries, 10, threads=options.threads) for name, queries in sets.items()}
    rows: list[dict[str, Any]] = []
    for recipe, settings in SETTINGS.items():
        index = AnnIndex.build(matrix, load_recipe(recipe), threads=options.threads)
        for setting in settings:
            row: dict[str, Any] = {"recipe": recipe, **setting}
            for name, queries in sets.items():
                found = index.search(queries, 10, parameters=setting, threads=options.threads)
                recalls = recall_of(found, truth[name])
                row[name] = round(float(recalls.mean()), 4)
                row[f"{name}_standard_error"] = round(float(recalls.std()) / len(recalls) ** 0.5, 4)
            rows.append(row)
            print(row, flush=True)
    publish(
        f"tuning_queries_{options.data}_{options.vectors}",
        {"vectors": options.vectors, "dim": matrix.shape[1], "data": options.data, "rows": rows},
        options,
    )


if __name__ == "__main__":
    main()
