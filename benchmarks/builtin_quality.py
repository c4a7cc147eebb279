"""How well and how fast the built-in encoder finds things: ``python benchmarks/builtin_quality.py [FOLDER]``.

``$MMSEARCH_TEST_DATA`` names a folder with ``photos/`` (images and labels.jsonl) and ``flickr8k/`` (images,
captions.tsv, dev.txt). FOLDER is another encoder of the same layout. Prints one JSON object and writes it to
``benchmarks/results/builtin_quality.json``.

- mAP: mean over object names of the average precision of all photos, ranked by "a photo of a NAME."
- R@k text to image: share of captions whose own image is among the first k of all dev images.
- R@k image to text: share of images with at least one of their captions among the first k of all captions.

Texts that look for something are encoded as queries, texts that are found as texts. ``with several views`` is the same
of ``builtin+views``, which looks at each picture three times.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from common.environment import data_folder
from common.output import command_line, publish
from common.timing import best_rate
from PIL import Image

from mmsearch.models.encoders.base import Encoder, EncoderOptions, FloatArray
from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS, BuiltinEncoder
from mmsearch.models.encoders.views import ManyViews

COLD = """
import time; start = time.perf_counter()
from pathlib import Path
from mmsearch.models.encoders.builtin import BuiltinEncoder
BuiltinEncoder(Path({directory!r})).encode_texts(["mountain lake"])
print(time.perf_counter() - start)
"""


def average_precision(scores: FloatArray, relevant: np.ndarray) -> float:
    """Mean of the precisions at the ranks of the relevant; scores (n,), relevant (n,) bool, at least one."""
    found = relevant[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(found) / np.arange(1, len(found) + 1)
    return float(precision[found].mean())


def object_map(encoder: Encoder, photos: Path) -> tuple[float, float, int]:
    """(mAP over object names, that of random order on average, number of names) on ``photos``."""
    labels = [json.loads(line) for line in (photos / "labels.jsonl").read_text().splitlines()]
    images = encode_files(encoder, [photos / "images" / label["image"] for label in labels])
    names = sorted({name for label in labels for name in label["objects"]})
    scores = encoder.encode_queries([f"a photo of a {name}." for name in names], "en") @ images.T
    relevant = np.array([[name in label["objects"] for label in labels] for name in names])
    shuffled = np.random.default_rng(0).random((20, *scores.shape))
    chance = [average_precision(s, r) for draw in shuffled for s, r in zip(draw, relevant, strict=True)]
    found = [average_precision(s, r) for s, r in zip(scores, relevant, strict=True)]
    return float(np.mean(found)), float(np.mean(chance)), len(names)


def caption_recall(encoder: Encoder, flickr: Path) -> dict[str, dict[str, float]]:
    """R@1, 5 and 10 in percent, both directions, on the dev images and all their captions."""
    names = (flickr / "dev.txt").read_text().split()
    position = {name: i for i, name in enumerate(names)}
    lines = (flickr / "captions.tsv").read_text().splitlines()
    pairs = [line.split("\t", 1) for line in lines if line.split("\t", 1)[0] in position]
    owner = np.array([position[image] for image, _ in pairs])
    images = encode_files(encoder, [flickr / "images" / name for name in names])
    captions = [caption for _, caption in pairs]
    scores = encoder.encode_queries(captions, "en") @ images.T
    image_rank = (scores > scores[np.arange(len(owner)), owner][:, None]).sum(1)
    scores = encoder.encode_texts(captions) @ images.T
    best_own = np.full(len(names), -np.inf, dtype=np.float32)
    np.maximum.at(best_own, owner, scores[np.arange(len(owner)), owner])
    caption_rank = (scores > best_own).sum(0)
    return {
        direction: {f"R@{k}": round(100 * float((rank < k).mean()), 2) for k in (1, 5, 10)}
        for direction, rank in (("text_to_image", image_rank), ("image_to_text", caption_rank))
    }


def encode_files(encoder: Encoder, files: list[Path]) -> FloatArray:
    """Rows of picture files, a batch at a time."""
    batches = [files[i : i + encoder.batch_size] for i in range(0, len(files), encoder.batch_size)]
    return np.concatenate([encoder.encode_images([Image.open(f).convert("RGB") for f in b]) for b in batches])


def with_views(encoder: BuiltinEncoder, data: Path, seconds: float = 5.0) -> dict[str, object]:
    """Quality of several looks at a picture, and how many pictures a second the image encoder then takes."""
    many = ManyViews(encoder, "builtin+views")
    noise = np.random.default_rng(0).integers(0, 256, (320, 427, 3), dtype=np.uint8)
    pixels = np.stack([many.prepare_image(Image.fromarray(noise))] * many.batch_size)
    return {
        "photos_mAP": round(object_map(many, data / "photos")[0], 4),
        "flickr8k_dev": caption_recall(many, data / "flickr8k"),
        "images_per_s": round(best_rate(lambda: len(many.encode_prepared(pixels)), seconds), 1),
    }


def speed(encoder: BuiltinEncoder, flickr: Path, seconds: float = 5.0) -> dict[str, float]:
    """Best of repeated rounds: pictures a second through the image encoder alone, texts a second, cold text query."""
    lines = (flickr / "captions.tsv").read_text().splitlines()
    captions = [line.split("\t", 1)[1] for line in lines[:256]]
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    pixels = np.stack([encoder.prepare_image(Image.fromarray(noise))] * encoder.batch_size)
    code = COLD.format(directory=str(encoder.directory))
    cold = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) for _ in range(5)
    ]
    return {
        "images_per_s": round(best_rate(lambda: len(encoder.encode_prepared(pixels)), seconds), 1),
        "texts_per_s": round(best_rate(lambda: len(encoder.encode_texts(captions)), seconds), 1),
        "cold_text_s_best": round(min(cold), 3),
        "cold_text_s_median": round(float(np.median(cold)), 3),
    }


def main() -> None:
    """Measures, prints, writes."""
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=SHIPPED_WEIGHTS, help="another encoder; only prints")
    options, data = parser.parse_args(), data_folder()
    directory = options.folder
    encoder = BuiltinEncoder(directory, EncoderOptions(threads=2))
    found, chance, names = object_map(encoder, data / "photos")
    result = {
        "encoder": encoder.spec.describe(),
        "bytes": sum(file.stat().st_size for file in directory.iterdir()),
        "photos_mAP": round(found, 4),
        "photos_mAP_random": round(chance, 4),
        "object_names": names,
        "flickr8k_dev": caption_recall(encoder, data / "flickr8k"),
        "threads": 2,
        "batch_size": encoder.batch_size,
        "speed": speed(encoder, data / "flickr8k"),
        "with several views": with_views(encoder, data),
    }
    options.no_write = options.no_write or directory != SHIPPED_WEIGHTS
    publish("builtin_quality", result, options)


if __name__ == "__main__":
    main()
