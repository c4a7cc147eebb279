"""What finding lists through a projection saves while inverted lists are filled, and how often it finds another list.

    python benchmarks/build_time.py

16,384 vectors of common/vectors.py against the lists of recipe ivf_pq, processor seconds of one thread.
"""

from __future__ import annotations

import time
from typing import Any

import faiss
import numpy as np
from common.output import command_line, publish
from common.vectors import Source

from mmsearch.store.local.vector_index.ann_building import prepared, quick_assignment

ROWS, TRAINED = 16_384, 32_768


def measure(lists: int) -> dict[str, Any]:
    """Seconds to assign, and to assign and encode, with all centroids in full and through the projection."""
    source = Source()
    sample = np.concatenate([source.images(TRAINED // 2, part) for part in (0, 1)])
    vectors = source.images(ROWS, 2)
    core = faiss.index_factory(source.dim, f"IVF{lists},PQ256x4fsr", faiss.METRIC_INNER_PRODUCT)
    with prepared(core, sample, 0):
        core.cp.min_points_per_centroid, core.cp.niter, core.pq.cp.niter = 1, 3, 3
        core.train(sample)
    figures: dict[str, Any] = {"lists": lists}
    found = {}
    for way, vectors_to_come in (("in_full", 0), ("projected", ROWS)):
        with quick_assignment(core, vectors_to_come):
            start = time.process_time()
            found[way] = core.quantizer.assign(vectors, 1)
            assigned = time.process_time()
            core.add(vectors)
            figures[way] = {"assign_s": round(assigned - start, 3), "add_s": round(time.process_time() - assigned, 3)}
    figures["same_list"] = round(float((found["in_full"] == found["projected"]).mean()), 3)
    return figures


def main() -> None:
    """Measures, prints, writes."""
    options = command_line(__doc__).parse_args()
    faiss.omp_set_num_threads(1)
    rows = [measure(lists) for lists in (512, 2048)]
    publish("build_time", {"vectors": ROWS, "dim": 512, "rows": rows}, options)


if __name__ == "__main__":
    main()
