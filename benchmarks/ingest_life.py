"""What does a large index cost when little or nothing has changed?

    python benchmarks/ingest_life.py [--files 1000000] [--renamed 20000]

Two questions. How long does it take, and how much memory, to find out that a million small files are unchanged? The
files are real; the catalogue is filled as indexing them would have filled it. And how long does the next run take when
the root of twenty thousand indexed photos was renamed: how many of them are decoded and encoded again?
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common.output import command_line, publish
from PIL import Image

from mmsearch.core.types import EncoderSpec
from mmsearch.ingest import IngestOptions, ingest
from mmsearch.media.base import DecodeOptions
from mmsearch.media.image.reader import ImageDecoder
from mmsearch.models.encoders.base import Encoder, FloatArray
from mmsearch.sources import FileEntry, WalkRules, walk
from mmsearch.store.local.directory import IndexDirectory

DIM = 16


class MeanColour(Encoder):
    """As cheap as an encoder can be: what is measured is everything else."""

    spec = EncoderSpec("mean-colour", "1" * 64, DIM, "mean colour")
    input_size, batch_size, max_text_tokens = 8, 256, 32

    def __init__(self) -> None:
        self.encoded = 0

    def prepare_image(self, image: Image.Image) -> np.ndarray:
        """(8, 8, 3) uint8."""
        return np.asarray(image.resize((8, 8)))

    def encode_prepared(self, inputs: np.ndarray) -> FloatArray:
        """The pixels of a corner, to length 1."""
        self.encoded += len(inputs)
        rows = inputs.reshape(len(inputs), -1)[:, :DIM].astype(np.float32) + 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """Nobody searches here."""
        return np.tile(np.eye(1, DIM, dtype=np.float32), (len(texts), 1))

    def count_tokens(self, text: str) -> int:
        """Words and two more."""
        return len(text.split()) + 2


def write_tiny_files(folder: Path, count: int) -> None:
    """Files of some bytes, a thousand in a folder, the names of which are as long as cameras make them."""
    for number in range(count):
        if number % 1000 == 0:
            below = folder / f"{number // 100_000:02d}" / f"{number // 1000:04d}"
            below.mkdir(parents=True)
        (below / f"IMG_{number:08d}.jpg").write_bytes(b"%d" % number)


def fill_catalogue(index: IndexDirectory, folder: Path) -> int:
    """As indexing would: a content, a segment, a vector and a document for each file."""
    decoding = ImageDecoder().signature(DecodeOptions())
    with index.writing() as writable, writable.catalogue.transaction():
        sql, space = writable.catalogue.sql, writable.space()
        root = writable.catalogue.add_root(str(folder), is_relative=False)
        writable.catalogue.keep_scope(root.id, "", IngestOptions().kept())
        count = 0
        for count, met in enumerate(walk(folder, WalkRules()), start=1):
            assert isinstance(met, FileEntry)
            sql.execute("INSERT INTO contents (id, hash, decoding, modality) VALUES (?, ?, ?, 'image')",
                        [count, count.to_bytes(20, "big"), decoding])  # fmt: skip
            sql.execute("INSERT INTO segments (id, content_id, ordinal) VALUES (?, ?, 0)", [count, count])
            sql.execute("INSERT INTO vectors VALUES (?, ?, ?, 'image')", [space.id, count - 1, count])
            writable.catalogue.put_document(root.id, met.path, "image", met.size, met.mtime_ns, count)
        block = np.tile(np.eye(1, DIM, dtype=np.float16), (count, 1))
        writable.vector_file(space).append(block, at=0)
        writable.catalogue.set_row_count(space.id, count)
    return count


def unchanged(place: Path, count: int) -> dict[str, Any]:
    """A run over files that are all known, in a process of its own: seconds and peak memory."""
    folder, home = place / "many", place / "many-index"
    write_tiny_files(folder, count)
    IndexDirectory.create(home, "mean-colour", MeanColour.spec)
    index = IndexDirectory.open(home)
    assert fill_catalogue(index, folder) == count
    index.close()
    figures = {}
    for cache in ("first", "again"):
        command = [sys.executable, __file__, "--child", str(folder), str(home)]
        figures[cache] = json.loads(subprocess.check_output(command, text=True))
        assert figures[cache]["unchanged"] == count
    return {"files": count, **figures}


def child(folder: Path, home: Path) -> None:
    """Prints what a run cost."""
    index = IndexDirectory.open(home)
    started = time.perf_counter()
    report = ingest(index, MeanColour(), [folder])
    seconds = time.perf_counter() - started
    figures = {
        "unchanged": report.unchanged,
        "seconds": round(seconds, 1),
        "cpu_s": round(time.process_time(), 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(figures))


def renamed(place: Path, count: int) -> dict[str, Any]:
    """Indexes ``count`` small photos, renames their root, and indexes again."""
    folder, encoder = place / "photos", MeanColour()
    random = np.random.default_rng(0)
    for number in range(count):
        if number % 500 == 0:
            below = folder / f"{number // 500:03d}"
            below.mkdir(parents=True)
        Image.fromarray(random.integers(0, 256, (32, 48, 3), dtype=np.uint8)).save(below / f"{number:05d}.jpg")
    IndexDirectory.create(place / "index", "mean-colour", encoder.spec)
    index = IndexDirectory.open(place / "index")
    first = ingest(index, encoder, [folder])
    moved = folder.rename(place / "pictures")
    encoded = encoder.encoded
    report = ingest(index, encoder, [moved])
    again = ingest(index, encoder, [moved])
    index.close()
    assert (report.updated, report.indexed, again.unchanged) == (count, 0, count)
    return {
        "files": count,
        "first_run_s": first.seconds["total"],
        "seconds": report.seconds["total"],
        "stages_s": dict(report.seconds),
        "decoding_s": report.seconds.get("decode", 0.0),
        "encoded": encoder.encoded - encoded,
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """Runs the benchmark and writes its result."""
    parser = command_line(__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--renamed", type=int, default=20_000)
    parser.add_argument("--child", nargs=2, type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    with tempfile.TemporaryDirectory() as place:
        figures = {"renamed_root": renamed(Path(place), arguments.renamed)} if arguments.renamed else {}
        if arguments.files:
            figures["unchanged_files"] = unchanged(Path(place), arguments.files)
    publish("ingest_life", figures, arguments)


if __name__ == "__main__":
    main()
