"""A query from a cold process: ``python benchmarks/cold_start.py [--images 10000] [--rounds 11]``.

Makes an index of small generated files, each with bytes of its own, through the ordinary pipeline, so that the
catalogue and the vector file are as large as they would be; only the image encoder is spared: the vectors are
random, which costs a query as much as any others (``--encode`` runs it after all). Then measures the wall time of
whole processes: ``mmsearch query`` in English and in Chinese, ``mmsearch --help`` and ``import mmsearch``, the rounds
taking turns, and lists the heavy modules each imports. An empty interpreter is measured beside them. The files are in
the system's cache, as after the first query.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common.output import command_line, publish
from common.timing import in_turns
from PIL import Image

from mmsearch import Index, open_encoder
from mmsearch.models.encoders.base import Encoder

HEAVY = ("torch", "open_clip", "torchvision", "faiss", "onnxruntime", "tokenizers", "numpy", "PIL", "av", "pandas",
         "sqlite_utils", "typer", "rich", "pathspec")  # fmt: skip
BARS = {"query": 0.8, "help": 0.3, "import": 0.3}
CHINESE = 1.3
"""Bar: processor time of a Chinese query, in times that of an English one."""
FORBIDDEN = {
    "query": {"torch", "open_clip"},
    "Chinese query": {"torch", "open_clip"},
    "help": {"torch", "open_clip", "faiss"},
    "import": {"torch", "open_clip", "faiss"},
}
MODULES = "import sys, json, atexit; atexit.register(lambda: print('\\n' + json.dumps(sorted(sys.modules)))); "


def command(*words: str) -> str:
    """Python code for a command line."""
    return f"import sys; sys.argv = {['mmsearch', *words]!r}; from mmsearch.cli import main; main()"


class RandomVectors(Encoder):
    """Stands for the built-in encoder while the index is filled: random rows of length 1 instead of its own."""

    def __init__(self, real: Encoder) -> None:
        self.spec, self.input_size = real.spec, real.input_size
        self.max_text_tokens, self.batch_size = real.max_text_tokens, 256
        self._random = np.random.default_rng(1)

    def prepare_image(self, image: Image.Image) -> np.ndarray:
        """Nothing that would be looked at."""
        return np.zeros(1, dtype=np.uint8)

    def encode_prepared(self, inputs: np.ndarray) -> np.ndarray:
        """One random row for each image."""
        rows = self._random.standard_normal((len(inputs), self.spec.dim), dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """One random row for each text."""
        return self.encode_prepared(np.zeros(len(texts)))

    def count_tokens(self, text: str) -> int:
        """Words, with a start and an end."""
        return len(text.split()) + 2


def make_index(work: Path, images: int, encode: bool) -> Path:
    """An index of ``images`` pictures of 32 × 32 pixels of noise."""
    folder, place = work / "images", work / "index"
    random = np.random.default_rng(0)
    for number in range(images):
        path = folder / f"{number // 1000:02d}" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path, compress_level=0)
    Index.open(place, create=True, encoder="builtin").close()  # the manifest names the real encoder
    encoder = open_encoder("builtin")
    with Index.open(place, encoder=encoder if encode else RandomVectors(encoder)) as index:
        report = index.add(folder)
    if report.indexed != images:
        raise SystemExit(f"expected {images} indexed images, got {report.indexed}")
    return place


def timed(code: str, environment: dict[str, str]) -> tuple[float, float]:
    """Wall and processor seconds of one process."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=environment)
    wall = time.perf_counter() - started
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def heavy_modules(code: str, environment: dict[str, str]) -> list[str]:
    """Which of the heavy modules the process has imported at its end."""
    line = [sys.executable, "-c", MODULES + code]
    output = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    modules = set(json.loads(output.splitlines()[-1]))
    return [name for name in HEAVY if name in modules]


def main() -> int:
    """Measures, prints, writes the result; exit code 1 when a bar is missed."""
    parser = command_line(__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--encode", action="store_true", help="fill the index with real vectors (slow)")
    parser.add_argument("--index", type=Path, help="an index that exists, instead of making one")
    arguments = parser.parse_args()

    work = Path(tempfile.mkdtemp(prefix="mmsearch-cold-"))
    environment = {**os.environ, "MMSEARCH_HOME": str(work)}
    try:
        index = arguments.index or make_index(work, arguments.images, arguments.encode)
        codes = {
            "query": command("query", "mountain lake", "--all", "--index", str(index)),
            "Chinese query": command("query", "山与湖", "--all", "--index", str(index)),
            "help": command("--help"),
            "import": "import mmsearch",
            "empty interpreter": "pass",
        }
        ways = {name: partial(timed, code, environment) for name, code in codes.items()}
        times = in_turns(ways, arguments.rounds)  # the round before fills bytecode and page cache
        modules = {name: heavy_modules(code, environment) for name, code in codes.items()}
    finally:
        shutil.rmtree(work)
    figures: dict[str, Any] = {
        "images": arguments.images,
        "vectors": "real" if arguments.encode else "random",
        "rounds": arguments.rounds,
        "processes": {},
    }
    passed = True
    for name, measured in times.items():
        wall = [seconds for seconds, _ in measured]
        met = statistics.median(wall) <= BARS.get(name, 1e9) and not FORBIDDEN.get(name, set()) & set(modules[name])
        passed &= met
        figures["processes"][name] = {
            "median_wall_s": round(statistics.median(wall), 3),
            "fastest_wall_s": round(min(wall), 3),
            "slowest_wall_s": round(max(wall), 3),
            "median_cpu_s": round(statistics.median(cpu for _, cpu in measured), 3),
            "bar_s": BARS.get(name),
            "passed": met,
            "heavy_modules": modules[name],
        }
        print(f"{name}: {figures['processes'][name]}")
    cpu = {name: statistics.median(used for _, used in times[name]) for name in ("query", "Chinese query")}
    figures["processor time, Chinese to English query"] = round(cpu["Chinese query"] / cpu["query"], 3)
    passed &= cpu["Chinese query"] <= CHINESE * cpu["query"]
    figures["passed"] = passed
    figures["load_average"] = round(os.getloadavg()[0], 1)
    publish("cold_start", figures, arguments)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
