"""The same folder through three readers: this project's, rclip's and clip-retrieval's, from their packages on PyPI.

    pip download --no-deps -d DIR rclip clip-retrieval && cd DIR && for f in *.whl; do unzip -qo $f -d x; done
    python benchmarks/ingest_peers.py --peers DIR/x [--images 64] [--rounds 3]

Each reads all JPEGs of a folder (in the system's cache) and hands batches to the same stand-in for an image encoder: it
sleeps a fixed time an image, as if a GPU worked, so that only reading competes for the processor. Ours is the whole of
`Index.add`: walking, hashing, decoding with EXIF orientation and colour profiles, and the commits. rclip's is its
loader (hash, decode, resize to its model's 256 pixels; threads), clip-retrieval's its `FilesReader` with as many worker
processes as there are cores, decoding and resizing as open_clip's transform does. rclip's database and
clip-retrieval's writer are left out of their times. All three take turns.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common.output import command_line, publish
from common.photos import real_photos, write_jpegs
from common.timing import in_turns, timed
from PIL import Image

from mmsearch import Index
from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders.base import Encoder, FloatArray

SETS = {"640x480": (640, 480), "12 megapixels": (4000, 3000)}
BATCH = 32


class Sleeping(Encoder):
    """Model inputs as CLIP's transform makes them, and an encoder that takes its time without using a core."""

    spec = EncoderSpec("sleeping", "2" * 64, 8, "224 px, shorter side, centre")
    input_size, batch_size, max_text_tokens = 224, BATCH, 77

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def prepare_image(self, image: Image.Image) -> np.ndarray:
        """(224, 224, 3) uint8."""
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC, box=box))

    def encode_prepared(self, inputs: np.ndarray) -> FloatArray:
        """Different unit vectors for different inputs."""
        time.sleep(self._seconds * len(inputs))
        rows = inputs.reshape(len(inputs), -1)[:, :8].astype(np.float32) + 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """Nobody searches here."""
        return np.tile(np.eye(1, 8, dtype=np.float32), (len(texts), 1))

    def count_tokens(self, text: str) -> int:
        """Words and two more."""
        return len(text.split()) + 2


def ours(folder: Path, seconds: float) -> int:
    """`Index.add`, without what is done once an index."""
    place = Path(tempfile.mkdtemp(prefix="mmsearch-peers-"))
    try:
        with Index.open(place / "index", create=True, encoder=Sleeping(seconds)) as index:
            from mmsearch.ingest import ingest

            return ingest(index._directory, index.encoder(), [folder]).indexed
    finally:
        shutil.rmtree(place)


def rclip_reader(peers: Path) -> Callable[[Path, float], int]:
    """rclip's loader, with its own batch size."""
    sys.path.insert(0, str(peers))
    from rclip.main import RClip

    def read(folder: Path, seconds: float) -> int:
        reader = RClip(None, None, BATCH, None)  # type: ignore[arg-type]
        items = ((str(path), {"modified_at": 0.0, "size": path.stat().st_size}) for path in sorted(folder.iterdir()))
        count = 0
        for _ in reader._load_images(items):
            count += 1
            if count % BATCH == 0:
                time.sleep(seconds * BATCH)
        time.sleep(seconds * (count % BATCH))
        reader.close()
        return count

    return read


def clip_retrieval_reader(peers: Path) -> Callable[[Path, float], int]:
    """clip-retrieval's reader of folders; loaded by its file, because the package asks for a web server."""
    path = peers / "clip_retrieval" / "clip_inference" / "reader.py"
    spec = importlib.util.spec_from_file_location("clip_retrieval_reader", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    from open_clip.transform import image_transform

    transform = image_transform(224, is_train=False)

    def read(folder: Path, seconds: float) -> int:
        reader = module.FilesReader(
            lambda keys: keys, transform, None, str(folder), BATCH, len(os.sched_getaffinity(0)), enable_text=False
        )
        count = 0
        for batch in reader:
            count += len(batch["image_tensor"])
            time.sleep(seconds * len(batch["image_tensor"]))
        return count

    return read


def measure(
    readers: dict[str, Callable[[Path, float], int]], folder: Path, count: int, rounds: int, seconds: float
) -> dict[str, Any]:
    """Images a second of each, median over rounds in which they take turns."""

    def rate(name: str) -> float:
        took, found = timed(lambda: readers[name](folder, seconds))
        if found != count:
            raise SystemExit(f"{name} read {found} of {count} images")
        return count / took

    rates = in_turns({name: partial(rate, name) for name in readers}, rounds)
    medians = {name: statistics.median(each) for name, each in rates.items()}
    return {
        "images": count,
        "images_per_s": {name: round(rate, 1) for name, rate in medians.items()},
        "times_as_fast_as": {name: round(medians["mmsearch"] / rate, 2) for name, rate in medians.items()},
    }


def main() -> None:
    """Measures, prints, writes the result."""
    parser = command_line(__doc__)
    parser.add_argument("--peers", type=Path, required=True, help="folder with the unpacked wheels")
    parser.add_argument("--images", type=int, default=64, help="of 12 megapixels; eight times as many of 640 × 480")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encoder-ms", type=float, default=1.0)
    arguments = parser.parse_args()
    readers: dict[str, Callable[[Path, float], int]] = {
        "mmsearch": ours,
        "rclip": rclip_reader(arguments.peers),
        "clip-retrieval": clip_retrieval_reader(arguments.peers),
    }
    versions = sorted(path.name.removesuffix(".dist-info") for path in arguments.peers.glob("*.dist-info"))
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as work:
        for name, size in SETS.items():
            count = arguments.images * (8 if name == "640x480" else 1)
            folder = Path(work) / name
            write_jpegs(folder, count, size)
            figures[name] = measure(readers, folder, count, arguments.rounds, arguments.encoder_ms / 1000)
            print(name, figures[name], flush=True)
    content = {
        "peers": versions,
        "encoder_ms_an_image": arguments.encoder_ms,
        "rounds": arguments.rounds,
        "images_are": "photos with pixel noise" if real_photos() else "generated",
        "load_average": round(os.getloadavg()[0], 1),
        "sets": figures,
    }
    publish("ingest_peers", content, arguments)


if __name__ == "__main__":
    main()
