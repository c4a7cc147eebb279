"""What a question costs beyond the encoder and the vector search, and what a batch saves.

``python benchmarks/query_latency.py [DOCUMENTS]`` (100,000 by default) makes an index of so many documents: vectors
around those of real photos where ``$MMSEARCH_TEST_DATA`` is set, else random ones; paths of four folders and a number.
Writes ``benchmarks/results/query_latency.json``:

- overhead: for each of many questions, the time of `Index.search` less the time that it spends inside the encoder and
  inside the vector search (both wrapped by clocks); median and 95th percentile in milliseconds, by kind of question.
- batch: 1,000 questions by `search_many` against one `search` each, in questions a second, all different and with every
  one eight times; and by ``mmsearch query --queries`` against one ``mmsearch query`` each, as programs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common.environment import data_folder
from common.output import command_line, publish
from common.timing import Clock

from mmsearch.api import Index
from mmsearch.core.types import MediaInfo
from mmsearch.query.calibrate.calibration import refresh_calibration
from mmsearch.store.local.catalogue import NewContent, NewSegment
from mmsearch.store.local.store import LocalStore

_SUBJECTS = "dog cat lake mountain car street child flower boat bridge horse beach snow guitar kitchen train"
SUBJECTS = _SUBJECTS.split()
_SCENES = "at night|in the rain|on a table|by the sea|in winter|with friends|from above|in black and white"
SCENES = _SCENES.split("|")


def fill(index: Index, count: int) -> None:
    """Documents as a run of indexing would have written them, without files."""
    random = np.random.default_rng(0)
    centres = _centres(index, random)
    with index._directory.writing() as writer:
        space = writer.space()
        vectors = centres[random.integers(len(centres), size=count)]
        vectors = (
            vectors + 0.3 * random.standard_normal((count, space.spec.dim)).astype(np.float32) / space.spec.dim**0.5
        )
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        writer.vector_file(space).append(vectors.astype(np.float16), space.row_count)
        with writer.catalogue.transaction():
            root = writer.catalogue.add_root("/photos", is_relative=False)
            for number in range(count):
                info = MediaInfo(
                    width=4000, height=3000, taken_at=f"{2005 + number % 20}-06-{1 + number % 28:02d}T12:00:00"
                )
                content = NewContent(number.to_bytes(32, "big"), "image/1", "image", info, [NewSegment(number)])
                content_id = writer.catalogue.add_content(space, content)
                folder = f"{2005 + number % 20}/{('holiday', 'family', 'work', 'garden')[number // 20 % 4]}"
                path = f"{folder}/IMG_{number:06d}.jpg"
                writer.catalogue.put_document(root.id, path, "image", 3_000_000, 10**18 + number, content_id)
            writer.catalogue.set_row_count(space.id, count)


def _centres(index: Index, random: np.random.Generator) -> np.ndarray:
    files = sorted(data_folder("photos", "images", optional=True).glob("*.jpg"))
    if not files:
        return random.standard_normal((200, index.encoder_spec.dim)).astype(np.float32)
    from PIL import Image

    return index.encoder().encode_images([Image.open(file).convert("RGB") for file in files])


def overhead(index: Index, questions: list[str], k: int = 10) -> dict[str, float]:
    """Milliseconds beyond the encoder and the vector search, a question."""
    searcher = index._session.searcher()
    encoder = index.encoder(texts_only=True)
    encode, search = Clock(type(encoder).encode_texts.__get__(encoder)), Clock(searcher._vectors.search)
    encoder.encode_texts = encode  # type: ignore[method-assign]
    searcher._vectors.search = search  # type: ignore[method-assign]
    try:
        for question in questions[:5]:
            index.search(question, k=k)
        beyond, total = [], []
        for question in questions:
            encode.reset(), search.reset()
            start = time.perf_counter()
            index.search(question, k=k)
            total.append(time.perf_counter() - start)
            beyond.append(total[-1] - encode.seconds - search.seconds)
    finally:
        del encoder.encode_texts, searcher._vectors.search
    return {
        "questions": len(questions),
        "median_ms": round(1000 * float(np.median(beyond)), 3),
        "p95_ms": round(1000 * float(np.quantile(beyond, 0.95)), 3),
        "total_median_ms": round(1000 * float(np.median(total)), 3),
    }


def batch(index: Index, questions: list[str]) -> dict[str, float]:
    """Questions a second, one at a time and all together; the better of two rounds each."""

    def rate(work: Callable[[], Any], count: int) -> float:
        best = 0.0
        for _ in range(2):
            start = time.perf_counter()
            work()
            best = max(best, count / (time.perf_counter() - start))
        return best

    one = rate(lambda: [index.search(question) for question in questions[:200]], 200)
    many = rate(lambda: index.search_many(questions), len(questions))
    return {"one_at_a_time_per_s": round(one, 1), "batch_per_s": round(many, 1), "ratio": round(many / one, 2)}


def batch_of_programs(place: Path, questions: list[str]) -> dict[str, float]:
    """The same on the command line: one process for all questions against one process each."""
    command = [sys.executable, "-m", "mmsearch", "query", "--index", str(place), "--json", "--all"]

    def seconds(arguments: list[str], text: str | None = None) -> float:
        start = time.perf_counter()
        subprocess.run([*command, *arguments], input=text, text=True, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    seconds([questions[0]])
    one = 1 / float(np.median([seconds([question]) for question in questions[:8]]))
    many = len(questions) / min(seconds(["--queries", "-"], "\n".join(questions)) for _ in range(2))
    return {"one_at_a_time_per_s": round(one, 2), "batch_per_s": round(many, 1), "ratio": round(many / one, 1)}


def main() -> None:
    """Builds, measures, prints, writes."""
    parser = command_line(__doc__)
    parser.add_argument("documents", type=int, nargs="?", default=100_000)
    options = parser.parse_args()
    count = options.documents
    random = np.random.default_rng(1)
    words = [f"a {a} {b}" for a in SUBJECTS for b in SCENES]
    questions = [words[int(i)] for i in random.integers(len(words), size=200)]
    every = [f"{one} {subject}" for one in words for subject in SUBJECTS]
    thousand = [every[int(i)] for i in random.permutation(len(every))[:1000]]
    with (
        tempfile.TemporaryDirectory() as folder,
        Index.open(Path(folder) / "index", create=True, encoder="builtin") as index,
    ):
        fill(index, count)
        refresh_calibration(LocalStore(index._directory), index.encoder())
        index.search("warm up")
        figures = {
            "documents": count,
            "overhead": {
                "words": overhead(index, questions),
                "words, one of them a folder's name": overhead(index, [f"{q} garden" for q in questions[:60]]),
                "words and a filter for half of all": overhead(index, [f"{q} after:2015" for q in questions[:60]]),
                "words and a filter for one in 80": overhead(
                    index, [f"{q} path:2010/holiday/**" for q in questions[:60]]
                ),
                "words and an exclusion": overhead(index, [f"{q} -people" for q in questions[:60]]),
            },
            "batch in Python": batch(index, thousand),
            "batch in Python, each question eight times": batch(index, thousand[:125] * 8),
            "batch of the command line": batch_of_programs(index.path, thousand),
        }
    publish("query_latency", figures, options)


if __name__ == "__main__":
    main()
