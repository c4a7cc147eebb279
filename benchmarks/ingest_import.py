"""How long does it take to import a folder of clip-retrieval: vectors and tables of a million pictures?

    python benchmarks/ingest_import.py [--rows 1000000] [--dim 512] [--folder /tmp/…]

Vectors are random directions; the tables have the columns that clip-retrieval writes. Reported are seconds and rows a
second of the import, of the same import again (nothing changes), peak memory, and what `verify` says and takes.
"""

from __future__ import annotations

import resource
import tempfile
import time
from multiprocessing import Process
from pathlib import Path

import numpy as np
from common.output import command_line, publish
from common.timing import timed

from mmsearch.core.types import EncoderSpec
from mmsearch.ingest.datasets import import_folder
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.verify import verify

PART = 250_000


def write_folder(folder: Path, rows: int, dim: int) -> None:
    """Parts of ``PART`` rows, as `clip-retrieval inference` lays them out."""
    import pyarrow
    from pyarrow import parquet

    random = np.random.default_rng(0)
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for number, start in enumerate(range(0, rows, PART)):
        count = min(PART, rows - start)
        vectors = random.standard_normal((count, dim), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", vectors.astype(np.float16))
        keys = range(start, start + count)
        table = {
            "image_path": [f"{key:09d}" for key in keys],
            "caption": [f"a photo of thing number {key} on a table in the {key % 97} o'clock light" for key in keys],
            "url": [f"https://cdn.example.org/{key % 1000:03d}/{key:09d}.jpg" for key in keys],
            "width": [640] * count,
            "height": [480] * count,
        }
        parquet.write_table(pyarrow.table(table), folder / "metadata" / f"metadata_{number}.parquet")


def main() -> None:
    """Runs the benchmark and writes its result."""
    parser = command_line(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    arguments = parser.parse_args()
    spec = EncoderSpec("any", "0" * 64, arguments.dim, "none")
    with tempfile.TemporaryDirectory() as place:
        folder, home = Path(place) / "dataset", Path(place) / "index"
        writing = Process(target=write_folder, args=(folder, arguments.rows, arguments.dim))  # its memory is not ours
        writing.start()
        writing.join()
        IndexDirectory.create(home, "any", spec)
        index = IndexDirectory.open(home)
        before = time.process_time()
        seconds, report = timed(lambda: import_folder(index, folder))
        processor = round(time.process_time() - before, 1)
        assert report.indexed == arguments.rows
        again, unchanged = timed(lambda: import_folder(index, folder))
        assert unchanged.unchanged == arguments.rows
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # before all vectors are mapped to be checked
        with index.writing(cut=False) as writable:
            verifying, verdict = timed(lambda: verify(writable))
        figures = {
            "rows": arguments.rows,
            "dim": arguments.dim,
            "import_s": round(seconds, 1),
            "import_cpu_s": processor,
            "rows_per_s": round(arguments.rows / seconds),
            "import_again_s": round(again, 1),
            "verify_s": round(verifying, 1),
            "verify_clean": verdict.clean,
            "peak_memory_mb": round(peak / 1024),
        }
        index.close()
    publish("ingest_import", figures, arguments)


if __name__ == "__main__":
    main()
