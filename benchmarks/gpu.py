"""What a GPU gives: encoders, vector search, and the commands as a user runs them. At most 8 minutes, no network.

    python benchmarks/gpu.py                     on a machine with one NVIDIA GPU
    python benchmarks/gpu.py --wheels DIR        … on a bare one: unpacks the wheels in DIR into a temporary folder
    python benchmarks/gpu.py --tiny              a dry run of every line in seconds, also without a GPU

- encoders: ViT-B-32 and ViT-L-14 of open_clip with random weights, bfloat16, without and with torch.compile. Images a
  second of the image encoder alone; with pictures in main memory, copied while the batch before is computed; and from
  JPEG files, decoded by threads. The smallest cosine to float32 says whether bfloat16 is good enough.
- vectors: 1,000,000 × 512 (common/vectors.py), the recipes for a GPU against exact search, ivf_pq and pq_scan of the
  same run: seconds to build and to open, bytes on disk, recall@10 on text queries at the parameters that `optimize`
  would choose for 0.95, and queries a second at 1, 16 and 256 together.
- commands: `mmsearch index`, `query`, `query --queries` and `optimize --recipe gpu_exact` as processes of their own.

Each part is a process with a budget of its own, ended when that is spent; every figure is written to
``results/gpu.json`` as soon as it is known, so a run that is cut off still has figures. ``cut_off`` names the parts
that were not through.

Wheels are fetched where there is a network, with the Python version and system of the bare machine (`pip download` has
``--python-version`` and ``--platform`` for another one):

    pip download -d wheels --only-binary=:all: torch torchvision open_clip_torch faiss-gpu-cu12 .
    rm wheels/faiss_cpu* wheels/mmsearch*        (the module faiss comes from faiss-gpu-cu12; mmsearch is this clone)

What the machine has already (torch with CUDA, say) need not be carried. ``--tiny`` without a GPU lets FAISS's indexes
in main memory stand in for those on the device, and runs torch on the processor: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from common.output import command_line, write_result

MARK = "FIGURE "


class Size(NamedTuple):
    """How much is measured."""

    models: dict[str, int]
    """Architecture → images in a batch."""
    files: int
    vectors: int
    dim: int
    queries: int
    seconds: float
    """What one rate is measured for."""
    repeats: int
    """How often a command is run."""
    threads: int | None = None
    """Of building; all by default."""


FULL = Size({"ViT-B-32": 1024, "ViT-L-14": 256}, 2000, 1_000_000, 512, 600, 2.0, 5)
TINY = Size({"small": 8}, 16, 2_000, 160, 120, 0.05, 1, 1)
PARTS = {"encoders": 140.0, "vectors": 230.0, "commands": 90.0}
"""Seconds that each part may take: 7 minutes and 40 seconds in all."""
TOGETHER = (1, 16, 256)
RECIPES = ("ivf_pq", "gpu_exact", "gpu_ivf", "gpu_cagra", "pq_scan")


def figure(*path: str, value: Any) -> None:
    """Hands a figure to the process that collects them."""
    print(MARK + json.dumps([path, value]), flush=True)


def photos(size: Size, folder: Path) -> list[Path]:
    """JPEG files of 640 × 480, which the parts share."""
    from common.photos import write_jpegs

    place = folder.parent / "photos"
    there = sorted(place.glob("*.jpg"))
    return there if len(there) == size.files else write_jpegs(place, size.files, (640, 480))


# Encoders


def encoders(size: Size, folder: Path) -> None:
    """Images a second; all models without `torch.compile` first, as that is what takes long."""
    import torch
    from common.models import random_model

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    figure("torch", value={"version": torch.__version__, "cuda": torch.version.cuda, "device": device_name(device)})
    files = photos(size, folder)
    models: dict[str, Any] = {}
    for compiles in (False, True):
        for name, batch in size.models.items():
            if not compiles:
                model = random_model(name).visual.to(device).eval()
                models[name] = model, cosine_of_half(model, device)
            model, cosine = models[name]
            model.to(torch.bfloat16)
            way = "compiled" if compiles else "eager"
            backend = "inductor" if device.type == "cuda" else "eager"
            encode = torch.compile(model, backend=backend) if compiles else model
            with torch.inference_mode():
                for what, value in encoder_rates(encode, device, batch, files, size.seconds):
                    figure(name, way, what, value=value)
            figure(name, "smallest_cosine_to_float32", value=cosine)


def device_name(device: Any) -> str:
    """Of the GPU, or ``cpu``."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def cosine_of_half(model: Any, device: Any) -> float:
    """The smallest cosine between bfloat16 and float32 rows of 32 pictures of noise; ``model`` stays as it is."""
    import copy

    import torch

    pixels = torch.randn(32, 3, *model.image_size, device=device)
    with torch.inference_mode():
        rows = model(pixels), copy.deepcopy(model).to(torch.bfloat16)(pixels.to(torch.bfloat16)).float()
    return round(float(torch.cosine_similarity(*rows).min()), 5)


def encoder_rates(
    encode: Any, device: Any, batch: int, files: list[Path], seconds: float
) -> Iterator[tuple[str, float]]:
    """Names and figures of one encoder in bfloat16: images a second, and what the first batch took."""
    import torch

    side = encode.image_size[0]
    ready = torch.randn(batch, 3, side, side, device=device, dtype=torch.bfloat16)
    started = time.perf_counter()
    encode(ready)
    settle(device)
    yield "first_batch_s", round(time.perf_counter() - started, 2)
    yield "batch", batch
    yield "encoder_only_per_s", rate(lambda: encode(ready), batch, seconds, device)

    pixels = torch.randint(0, 256, (2, batch, side, side, 3), dtype=torch.uint8)
    host = [one.pin_memory() if device.type == "cuda" else one for one in pixels]
    endless = copied(itertools.cycle(host), device)
    yield "with_copies_per_s", rate(lambda: encode(normalised(next(endless))).cpu(), batch, seconds, device)

    passes = itertools.cycle([files]) if seconds > 1 else iter([files, files])
    batches = copied(decoded(itertools.chain.from_iterable(passes), batch, side, device), device)
    encode(normalised(next(batches)))  # the threads have begun
    count, started = 0, time.perf_counter()
    for pictures in batches:
        encode(normalised(pictures)).cpu()
        count += len(pictures)
        if time.perf_counter() - started > 2 * seconds:
            break
    batches.close()
    yield "from_files_per_s", round(count / (time.perf_counter() - started), 1)


def normalised(pixels: Any) -> Any:
    """(n, h, w, 3) uint8 on the device to (n, 3, h, w) bfloat16 as the model wants it."""
    import torch

    return pixels.permute(0, 3, 1, 2).to(torch.bfloat16).sub_(122.0).div_(68.0)


def copied(batches: Iterator[Any], device: Any) -> Iterator[Any]:
    """``batches`` of main memory on the device; the next one travels while the caller computes with this one."""
    import torch

    if device.type != "cuda":
        yield from batches
        return
    stream, ahead = torch.cuda.Stream(), None
    for batch in batches:
        with torch.cuda.stream(stream):
            travelling = batch.to(device, non_blocking=True)
        if ahead is not None:
            yield ahead
        torch.cuda.current_stream().wait_stream(stream)
        travelling.record_stream(torch.cuda.current_stream())
        ahead = travelling
    if ahead is not None:
        yield ahead


def decoded(files: Iterator[Path], batch: int, side: int, device: Any) -> Iterator[Any]:
    """Batches of pictures, uint8 (n, side, side, 3), read by as many threads as there are cores, some ahead."""
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    from mmsearch.media.base import DecodeOptions
    from mmsearch.media.image.reader import ImageDecoder

    def read(path: Path) -> Any:
        segment = next(iter(ImageDecoder().decode(path, DecodeOptions(min_side=side)).segments))
        return np.asarray(ImageOps.fit(segment.image, (side, side), Image.Resampling.BICUBIC))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = [pool.submit(read, path) for path in itertools.islice(files, 2 * batch)]
        while waiting:
            rows = torch.from_numpy(np.stack([future.result() for future in waiting[:batch]]))
            waiting = waiting[batch:]
            waiting += [pool.submit(read, path) for path in itertools.islice(files, batch)]
            try:
                yield rows.pin_memory() if device.type == "cuda" else rows
            except GeneratorExit:
                for future in waiting:
                    future.cancel()
                raise


def settle(device: Any) -> None:
    """Waits until the device has done all it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def rate(work: Callable[[], Any], items: int, seconds: float, device: Any) -> float:
    """Items a second of calls of ``work`` for about ``seconds``, after two to warm up."""
    for _ in range(2):
        work()
    settle(device)
    calls, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        work()
        calls += 1
        if calls % 4 == 0:
            settle(device)
    settle(device)
    return round(calls * items / (time.perf_counter() - started), 1)


# Vectors


def vectors(size: Size, folder: Path) -> None:
    """The recipes for a GPU, and some for the CPU, over the same vectors."""
    import faiss
    import numpy as np
    from common.vectors import Source, write_matrix

    from mmsearch.store.local.files.codes import CodeFile
    from mmsearch.store.local.recipes import load_recipe
    from mmsearch.store.local.vector_index import ExactIndex, gpu_count

    has_gpu, cuvs = gpu_count() > 0, hasattr(faiss, "GpuIndexCagra")
    figure("faiss", value={"version": faiss.__version__, "gpus": gpu_count(), "built_with_cuvs": cuvs})
    if size is TINY and not has_gpu:
        main_memory_as_device()
    source = Source(size.dim)
    matrix = write_matrix(folder / "vectors.f16", size.vectors, source)
    codes = CodeFile(folder / "vectors.u8", size.dim)
    codes.complete(matrix)
    exact = ExactIndex(matrix, codes.map(len(matrix)))
    texts = source.texts(size.queries, 0).astype(np.float32)
    figure("vectors", value=size.vectors)
    figure("dim", value=size.dim)
    figure("exact", "queries_per_s", value=query_rates(exact.search, texts, size.seconds))
    for name in RECIPES:
        recipe = load_recipe(name)
        if recipe.needs_gpu and not has_gpu and size is not TINY:
            figure(name, value="not measured: FAISS sees no GPU")
            continue
        try:
            measure_recipe(recipe, matrix, exact, texts, folder, size)
        except Exception as error:  # a recipe that fails leaves the others their time
            figure(name, "failed", value=f"{type(error).__name__}: {error}")


def measure_recipe(recipe: Any, matrix: Any, exact: Any, texts: Any, folder: Path, size: Size) -> None:
    """Builds, saves, opens, tunes, searches; a figure after each."""
    from common.timing import timed

    from mmsearch.store.local.vector_index import index_class, tune

    path, name = folder / f"{recipe.name}.faiss", recipe.name
    took, built = timed(lambda: index_class(recipe).build(matrix, recipe, threads=size.threads))
    figure(name, "build_s", value=round(took, 2))
    built.save(path)
    del built
    figure(name, "bytes_on_disk", value=path.stat().st_size)
    took, index = timed(lambda: index_class(recipe).open(path, recipe, matrix))
    figure(name, "open_s", value=round(took, 2))
    tuned = tune(index, texts, 10, 0.95, exact=exact)
    figure(name, "parameters", value=dict(tuned.parameters))
    figure(name, "recall@10", value=round(tuned.recall, 4))
    figure(name, "recall_low_high", value=[round(tuned.recall_low, 4), round(tuned.recall_high, 4)])
    rates = query_rates(lambda q, k: index.search(q, k, parameters=tuned.parameters), texts, size.seconds)
    figure(name, "queries_per_s", value=rates)


def query_rates(search: Callable[[Any, int], Any], texts: Any, seconds: float) -> dict[str, float]:
    """Queries a second where so many are searched together, ten neighbours each."""
    rates = {}
    for together in TOGETHER:
        search(texts[:together], 10)
        count, number, started = 0, 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            first = number * together % max(1, len(texts) - together)
            batch = texts[first : first + together]
            search(batch, 10)
            count, number = count + len(batch), number + 1
        rates[str(together)] = round(count / (time.perf_counter() - started), 1)
    return rates


def main_memory_as_device() -> None:
    """Lets FAISS's indexes in main memory stand in for those on a GPU: a dry run of all but the device itself."""
    from mmsearch.store.local.vector_index import gpu

    gpu.gpu_count, gpu.to_device = lambda: 1, lambda core: core


# Commands


def commands(size: Size, folder: Path) -> None:
    """What a user runs, as processes; the models are the built-in one and an open_clip one with random weights."""
    from common.models import save_model

    from mmsearch.store.local.vector_index import gpu_count

    pictures = photos(size, folder)[0].parent
    lines = folder / "queries.txt"
    lines.write_text("".join(f"a picture of thing number {number}\n" for number in range(256)))
    architecture = next(iter(size.models))
    for name, model in (("builtin", "builtin"), (architecture, save_model(folder / "model", architecture))):
        place = ["--index", str(folder / f"index-{name}")]
        seconds, output = run("index", str(pictures), "--model", model, "--json", *place)
        report = json.loads(output.splitlines()[-1])
        figure(name, "index", value={"images": report["indexed"], "command_s": seconds, "stages_s": report["seconds"]})
        cold = [run("query", "a lake in the mountains", "--json", "--all", *place)[0] for _ in range(size.repeats)]
        figure(name, "query_s", value=sorted(cold)[size.repeats // 2])
        figure(name, "256_queries_s", value=run("query", "--queries", str(lines), "--json", "--all", *place)[0])
        if size is FULL and gpu_count():
            seconds, output = run("optimize", "--recipe", "gpu_exact", "--json", *place)
            figure(name, "optimize_gpu_exact", value={"command_s": seconds, **json.loads(output.splitlines()[-1])})
            figure(name, "query_s_gpu_exact", value=run("query", "a lake", "--json", "--all", *place)[0])


def run(*words: str) -> tuple[float, str]:
    """Wall seconds and standard output of one mmsearch command; its own words on standard error if it fails."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "mmsearch", *words], stdout=subprocess.PIPE, text=True, check=True)
    return round(time.perf_counter() - started, 2), done.stdout


# The run


def install(wheels: Path, target: Path) -> None:
    """Unpacks the wheels for the processes to come; nothing of this machine's Python is changed."""
    files = [str(path) for path in sorted(wheels.glob("*.whl"))]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    subprocess.run([*pip, "--target", str(target), *files], check=True)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(target), os.environ["PYTHONPATH"]])


def run_part(name: str, seconds: float, folder: Path, options: argparse.Namespace, keep: Callable[..., None]) -> str:
    """One part in a process group of its own; ``done``, ``cut_off`` or ``failed``. ``keep`` gets each figure."""
    command = [sys.executable, str(Path(__file__).resolve()), "--part", name, "--folder", str(folder)]
    command += ["--tiny"] if options.tiny else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    spent = threading.Event()

    def end() -> None:
        spent.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(seconds, end)
    timer.start()
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(MARK):
            path, value = json.loads(line[len(MARK) :])
            print(f"{name}: {'.'.join(path)} = {value}", flush=True)
            keep(name, path, value)
    failed = process.wait() != 0
    timer.cancel()
    return "cut_off" if spent.is_set() else "failed" if failed else "done"


def main() -> int:
    """Runs the parts; exit code 1 where one failed."""
    parser = command_line(__doc__)
    parser.add_argument("--tiny", action="store_true", help="a dry run, also without a GPU")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels to use")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--budget", type=float, default=1.0, help="times the seconds that each part may take")
    parser.add_argument("--commit", help="of this clone, where it has no history")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        {"encoders": encoders, "vectors": vectors, "commands": commands}[options.part](
            TINY if options.tiny else FULL, options.folder
        )
        return 0
    figures: dict[str, Any] = {"tiny": options.tiny, "done": [], "cut_off": [], "failed": []}

    commit = {"commit": options.commit} if options.commit else {}

    def keep(part: str, path: list[str], value: Any) -> None:
        place = figures.setdefault(part, {})
        for step in path[:-1]:
            place = place.setdefault(step, {})
        place[path[-1]] = value
        if not options.no_write:
            write_result("gpu", figures, options.results, **commit)

    with tempfile.TemporaryDirectory(prefix="mmsearch-gpu-") as temporary:
        os.environ["MMSEARCH_HOME"] = os.environ["MMSEARCH_CACHE"] = str(Path(temporary) / "home")
        if options.wheels:
            install(options.wheels, Path(temporary) / "wheels")
        for name in options.only:
            folder = Path(temporary) / name
            folder.mkdir()
            started = time.perf_counter()
            ended = run_part(name, PARTS[name] * options.budget, folder, options, keep)
            figures[ended].append(name)
            keep(name, ["part_s"], round(time.perf_counter() - started, 1))
    print(json.dumps(figures, indent=2))
    return 1 if figures["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
