"""Images a second of open_clip's image encoders on a CPU: torch, ONNX Runtime in float32, and in int8, in turns.

    python benchmarks/hub_encoders.py ViT-B-32 ViT-B-16-SigLIP MobileCLIP2-S0

Random weights of the real architectures: speed does not depend on what they learned. Ratios are of medians, because
other programs may be at work on the machine.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common.output import command_line, publish

from mmsearch.core.options import EncoderOptions
from mmsearch.models.encoders.torch_encoder import TorchEncoder


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


def measure(architecture: str, images: int, rounds: int) -> dict[str, Any]:
    """The rates of one architecture, and the lowest cosine of float32 and of int8 to torch."""
    from mmsearch.models.encoders.image_export import Graph, ImageEncoder, export_image_encoder
    from mmsearch.models.encoders.image_int8 import int8_graph
    from mmsearch.models.encoders.machine_plan import plan_for
    from mmsearch.models.encoders.open_clip import OpenClipEncoder
    from mmsearch.models.encoders.open_clip_files import locate

    with tempfile.TemporaryDirectory() as place:
        os.environ["MMSEARCH_CACHE"] = place + "/cache"
        (folder := Path(place) / "model").mkdir()
        whole = OpenClipEncoder(locate(str(save_random(architecture, folder))), EncoderOptions(device="cpu"))
        started = time.perf_counter()
        found = export_image_encoder(whole)
        assert found is not None, f"{architecture} cannot be exported"
        export_s = time.perf_counter() - started
        exact = ImageEncoder(found, EncoderOptions(device="cpu"))
        path = int8_graph(found.files, found.graph)
        assert path is not None
        narrow = Graph(path, plan_for(path, found.shape, Graph, EncoderOptions(), one_by_one=True))
        # A fresh one: exporting changed the memory layout of the first to what graphs want.
        torch_encoder: TorchEncoder = OpenClipEncoder(locate(str(folder)), EncoderOptions(device="cpu"))
        torch_encoder.preparation, prepare = None, torch_encoder.preparation  # so that it never hands over
        assert prepare is not None
        pixels = np.random.default_rng(0).integers(0, 256, (images, *found.shape), dtype=np.uint8)
        ways: dict[str, Callable[[], np.ndarray]] = {
            "torch": lambda: torch_encoder._in_batches(pixels, torch_encoder._image_rows),  # type: ignore[attr-defined]
            "fp32": lambda: exact.encode(pixels),
            "int8": lambda: narrow.run(pixels),
        }
        rows = {name: way() for name, way in ways.items()}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                started = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - started)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        return {
            "model": architecture,
            **{f"{name}_images_per_s": round(images / median, 1) for name, median in medians.items()},
            **{f"{name}_against_torch": round(medians["torch"] / medians[name], 2) for name in ("fp32", "int8")},
            **{
                f"{name}_cosine": round(float((rows[name] * rows["torch"]).sum(1).min()), 6)
                for name in ("fp32", "int8")
            },
            "export_s": round(export_s, 1),
        }


def main() -> None:
    """Runs the benchmark and writes its result."""
    parser = command_line(__doc__)
    parser.add_argument("architectures", nargs="*", default=["ViT-B-32", "ViT-B-16-SigLIP", "MobileCLIP2-S0"])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    rows = [measure(architecture, given.images, given.rounds) for architecture in given.architectures]
    publish("hub_encoders", {"images": given.images, "models": rows}, given)


if __name__ == "__main__":
    main()
