"""Images a second of open_clip's image encoders on a CPU: torch, ONNX Runtime in float32, and in int8, in turns.

    python benchmarks/hub_encoders.py ViT-B-32 ViT-B-16-SigLIP MobileCLIP2-S0

Random weights of the real architectures: speed does not depend on what they learned, but whether int8 is good enough
does, so the cosines of int8 say nothing of trained weights. Each way is measured by the clock and in processor seconds
(user and system, of all threads), which other programs on the machine disturb less, least with ``--threads 1``: threads
of torch that wait for each other spin. Ratios are of medians.
``torch_share_of_peak`` and ``fp32_share_of_peak`` tell how much is left to gain: what a way computes in a processor
second over the most that a product of float32 matrices was seen to reach in one.

``--photos FOLDER`` also measures `mmsearch index` with the export of the first architecture: seconds from the start of
the process to its first batch, the modules it imports, and end to end against the encoder alone (as ingest_rate.py
does).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common.output import command_line, publish
from common.timing import in_turns
from ingest_rate import measure as measure_ingest

from mmsearch import EncoderOptions, IngestOptions
from mmsearch.models.encoders import open_encoder
from mmsearch.models.encoders.catalogue import ROWS
from mmsearch.models.encoders.torch_encoder import TorchEncoder

HEAVY = ("torch", "torchvision", "open_clip", "timm", "transformers", "onnxruntime")
GFLOPS = {row.name.partition("/")[0]: row.image_gflops for row in ROWS}
FIRST_BATCH = """
import json, os, sys, time
from mmsearch.models.encoders.image_export import ImageEncoder
encode = ImageEncoder.encode
def noted(self, pixels):
    rows = encode(self, pixels)
    if not said:
        said.append(time.time() - float(os.environ["STARTED"]))
        said.append(time.process_time())
    return rows
said, ImageEncoder.encode = [], noted
sys.argv = ["mmsearch", "index", *sys.argv[1:]]
from mmsearch.cli import main
try:
    main()
finally:
    print("\\n" + json.dumps([*said, [name for name in HEAVY if name in sys.modules]]))
"""


def save_random(architecture: str, folder: Path) -> Path:
    """Saves an architecture of open_clip with random weights in its local format."""
    import torch

    from mmsearch.models.encoders.open_clip import import_open_clip

    open_clip: Any = import_open_clip()
    torch.manual_seed(0)
    model = open_clip.create_model(architecture)
    config = open_clip.get_model_config(architecture)
    config["text_cfg"].pop("hf_tokenizer_name", None)  # it lies on the hub, and texts are not measured here
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    content = {"model_cfg": config, "preprocess_cfg": open_clip.get_model_preprocess_cfg(model)}
    (folder / "open_clip_config.json").write_text(json.dumps(content, default=list))
    return folder


def peak_gflops() -> float:
    """10⁹ operations in a processor second of one core: the best of products of matrices that fit its cache.

    By torch and by ONNX Runtime: their libraries do not use every processor equally well.
    """
    import onnxruntime
    import torch
    from onnx import TensorProto, helper

    matrix = np.ones((384, 384), np.float32)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, matrix.shape) for name in "abc"]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", values[:2], values[2:])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    torch.set_num_threads(1)
    tensor = torch.from_numpy(matrix)
    best = 0.0
    for product in (lambda: tensor @ tensor, lambda: session.run(None, {"a": matrix, "b": matrix})):
        for _ in range(200):
            started = time.process_time()
            for _ in range(4):
                product()
            best = max(best, 8 * 384**3 / (time.process_time() - started) / 1e9)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return best


def timed(way: Callable[[], np.ndarray]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    way()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(architecture: str, given: argparse.Namespace, place: Path, peak: float) -> dict[str, Any]:
    """The rates of one architecture, and the lowest cosine of float32 and of int8 to torch."""
    from mmsearch.models.encoders.image_export import Graph, ImageEncoder, export_image_encoder, find_image_export
    from mmsearch.models.encoders.image_int8 import int8_graph
    from mmsearch.models.encoders.machine_plan import plan_for
    from mmsearch.models.encoders.open_clip import OpenClipEncoder
    from mmsearch.models.encoders.open_clip_files import locate

    images, options = given.images, EncoderOptions(device="cpu", threads=given.threads)
    if not ((folder := place / architecture) / "open_clip_config.json").exists():
        folder.mkdir(exist_ok=True, parents=True)
        save_random(architecture, folder)
    found, export_s = find_image_export(locate(str(folder))), None
    if found is None:
        whole = OpenClipEncoder(locate(str(folder)), EncoderOptions(device="cpu"))
        started = time.perf_counter()
        found = export_image_encoder(whole)
        if found is None:
            return {"model": architecture, "exported": False}
        export_s = round(time.perf_counter() - started, 1)
        del whole  # exporting changed its memory layout to what graphs want: torch is measured with a fresh one
        gc.collect()
    exact = ImageEncoder(found, options)
    path = int8_graph(found.files, found.graph)
    assert path is not None
    narrow = Graph(path, plan_for(path, found.shape, Graph, options, one_by_one=True))
    torch_encoder: TorchEncoder = OpenClipEncoder(locate(str(folder)), options)
    torch_encoder.preparation = None  # so that it never hands over
    pixels = np.random.default_rng(0).integers(0, 256, (images, *found.shape), dtype=np.uint8)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "torch": lambda: torch_encoder._in_batches(pixels, torch_encoder._image_rows),  # type: ignore[attr-defined]
        "fp32": lambda: exact.encode(pixels),
        "int8": lambda: narrow.run(pixels),
    }
    rows = {name: way() for name, way in ways.items()}
    seconds = in_turns({name: lambda way=way: timed(way) for name, way in ways.items()}, given.rounds)  # type: ignore[misc]
    wall, cpu = (
        {name: statistics.median(pair[part] for pair in pairs) for name, pairs in seconds.items()} for part in (0, 1)
    )
    figures: dict[str, Any] = {"model": architecture, "exported": True}
    for unit, medians in (("s", wall), ("cpu_s", cpu)):
        figures |= {f"{name}_images_per_{unit}": round(images / median, 1) for name, median in medians.items()}
    for words, medians in (("", wall), ("_in_cpu_s", cpu)):
        figures |= {
            f"{name}_against_torch{words}": round(medians["torch"] / medians[name], 2) for name in ("fp32", "int8")
        }
    if architecture in GFLOPS:
        least = {name: min(pair[1] for pair in seconds[name]) for name in ("torch", "fp32")}
        figures |= {
            f"{name}_share_of_peak": round(GFLOPS[architecture] * images / spent / peak, 2)
            for name, spent in least.items()
        }
    figures |= {
        f"{name}_cosine": round(float((rows[name] * rows["torch"]).sum(1).min()), 6) for name in ("fp32", "int8")
    }
    plans = {"fp32": exact._exact.plan, "int8": narrow.plan}
    figures |= {
        f"{name}_plan": f"{p.threads} threads, batch {p.batch}, {p.at_once} at once" for name, p in plans.items()
    }
    return {**figures, "export_s": export_s}


def measure_index(folder: Path, photos: Path, count: int, rounds: int) -> dict[str, Any]:
    """A second `mmsearch index` with the model in ``folder``: its start, and its rate beside the encoder's."""
    with tempfile.TemporaryDirectory() as place:
        some = Path(place) / "photos"
        some.mkdir()
        files = []
        for file in sorted(photos.rglob("*.jpg"))[:count]:
            files.append(Path(shutil.copy(file, some)))
        (few := Path(place) / "few").mkdir()
        for file in files[:16]:
            shutil.copy(file, few)
        encoder = open_encoder(str(folder), EncoderOptions(device="cpu"))
        if isinstance(encoder, TorchEncoder):
            encoder.prepare_for_queries()  # as the first `mmsearch index` does at its end
        starts = [first_batch(folder, few, Path(place) / f"index-{number}") for number in range(rounds + 1)][1:]
        encoder = open_encoder(str(folder), EncoderOptions(device="cpu"))
        assert not isinstance(encoder, TorchEncoder)
        ingest = measure_ingest(encoder, files, rounds, IngestOptions())
    return {
        "first_batch_wall_s": round(statistics.median(start[0] for start in starts), 2),
        "first_batch_fastest_wall_s": round(min(start[0] for start in starts), 2),
        "first_batch_cpu_s": round(statistics.median(start[1] for start in starts), 2),
        "images_in_first_batch": 16,
        "heavy_modules": starts[0][2],
        "ingest": ingest,
    }


def first_batch(folder: Path, photos: Path, index: Path) -> tuple[float, float, list[str]]:
    """Wall and processor seconds of ``mmsearch index`` to its first batch of vectors; heavy modules at its end."""
    words = [str(photos), "--index", str(index), "--model", str(folder)]
    code = f"HEAVY = {HEAVY!r}" + FIRST_BATCH
    environment = {**os.environ, "STARTED": str(time.time())}
    said = subprocess.check_output([sys.executable, "-c", code, *words], text=True, env=environment)
    wall, cpu, modules = json.loads(said.splitlines()[-1])
    return wall, cpu, modules


def main() -> None:
    """Runs the benchmark and writes its result."""
    parser = command_line(__doc__)
    parser.add_argument("architectures", nargs="*", default=["ViT-B-32", "ViT-B-16-SigLIP", "MobileCLIP2-S0"])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="a folder that keeps the models and their exports for further runs")
    parser.add_argument("--threads", type=int, help="of each way; by default all cores")
    parser.add_argument("--photos", type=Path, help="a folder of JPEG files to index, too")
    parser.add_argument("--count", type=int, default=400, help="of photos")
    given = parser.parse_args()
    loads = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as name:
        place = given.work or Path(name)
        os.environ["MMSEARCH_CACHE"], os.environ["MMSEARCH_HOME"] = str(place / "cache"), str(place / "home")
        peak = peak_gflops()
        rows = []
        for architecture in given.architectures:
            rows.append(measure(architecture, given, place, peak))
            loads.append(os.getloadavg()[0])
            print(json.dumps(rows[-1]), flush=True)
            gc.collect()
        figures: dict[str, Any] = {
            "images": given.images,
            "rounds": given.rounds,
            "threads": given.threads,
            "models": rows,
        }
        if given.photos:
            figures["index"] = measure_index(place / given.architectures[0], given.photos, given.count, given.rounds)
            loads.append(os.getloadavg()[0])
    figures |= {"peak_gflops_a_cpu_s": round(peak), "load_average": [round(load, 1) for load in loads]}
    publish("hub_encoders" + (f"_threads_{given.threads}" if given.threads else ""), figures, given)


if __name__ == "__main__":
    main()
