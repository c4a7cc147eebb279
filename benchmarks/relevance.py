"""Whether relevance can be believed: ``python benchmarks/relevance.py [--detector nanodet.onnx] [--cache FOLDER]``.

``$MMSEARCH_TEST_DATA`` names a folder with ``photos/``, ``flickr8k/`` and ``coco/``. Writes
``benchmarks/results/relevance.json``:

- reliability: of the first 10 hits of each query, what relevance promises and how many are right, in ten bins, and the
  expected calibration error. Each library is judged by a curve that was fitted on the others (Flickr8k dev, names and
  captions, is one library); the libraries are those of ``scripts/fit_relevance.py``.
- names: of those that a library shows, how many have no match on top, by that curve; and of those that it does not show
  how many are said not to be there. For the latter each name is searched for in the library without the photos of it.
- rises: 300 queries of words by chance in each of three libraries, through `Index.search`: lists in which relevance
  rises, and in which a match stands behind a weaker one.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from common.environment import data_folder
from common.output import command_line, publish

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import fit_relevance as fitting

from mmsearch.api import Index
from mmsearch.models.encoders import open_encoder
from mmsearch.models.encoders.base import Encoder
from mmsearch.query import SearchOptions
from mmsearch.query.calibrate.calibration import fit_scale
from mmsearch.query.calibrate.fit import Reference
from mmsearch.query.options import MATCH

SAME = {"dev, names": "Flickr8k dev", "dev, captions": "Flickr8k dev"}
QUERIES = 300


def left_out(found: dict[str, list[fitting.Hits]], name: str) -> fitting.Curve:
    """The curve of all libraries but this one."""
    library = SAME.get(name, name)
    return fitting.fitted([hits for other, hits in found.items() if SAME.get(other, other) != library])


def judged(found: dict[str, list[fitting.Hits]], name: str) -> dict[str, Any]:
    """How often hits of a library are right beside what a curve of the others promises."""
    curve = left_out(found, name)
    promised = np.concatenate([fitting.chances(curve, hits).ravel() for hits in found[name]])
    right = np.concatenate([hits.right.ravel() for hits in found[name]])
    error, table = fitting.reliability(promised, right)
    return {"expected calibration error": round(error, 4), "hits": len(right), "bins": table}


def without_a_match(hits: list[fitting.Hits], curve: fitting.Curve) -> dict[str, Any]:
    """The names of what the photos show that have no match on top, by how they are written."""
    found: dict[str, Any] = {}
    for form, one in zip(fitting.FORMS, hits, strict=True):
        top = fitting.chances(curve, one)[:, 0]
        missed = np.flatnonzero((one.shown > 0) & (top < MATCH))
        found[form] = {
            "shown": int((one.shown > 0).sum()),
            "without a match": {fitting.COCO_NAMES[i]: int(one.shown[i]) for i in missed},
            "not shown": int((one.shown == 0).sum()),
            "of those said not to be there": int(((one.shown == 0) & (top < MATCH)).sum()),
        }
    return found


def absent(data: Path, encoder: Encoder, reference: Reference, curve: fitting.Curve, cache: Path | None) -> Any:
    """Each name in the 128 photos without those that show it."""
    files = sorted((data / "photos" / "images").iterdir())
    labels = [json.loads(line) for line in (data / "photos" / "labels.jsonl").read_text().splitlines()]
    shows = {label["image"]: set(label["objects"]) for label in labels}
    vectors = fitting.photo_vectors(encoder, files, cache)
    names = [name for name in fitting.COCO_NAMES if any(name in shown for shown in shows.values())]
    tops: dict[bool, list[float]] = {True: [], False: []}
    for name in names:
        is_shown = np.array([name in shows[file.name] for file in files])
        texts = [form(name) for form in fitting.FORMS.values()]
        for without in (True, False):
            gallery = vectors[~is_shown] if without else vectors
            none = np.zeros((len(texts), len(gallery)))
            tops[without] += fitting.chances(
                curve, fitting.hits_of(texts, none, gallery, encoder, reference)
            )[:, 0].tolist()  # fmt: skip
    gone, present = np.array(tops[True]), np.array(tops[False])
    limit = float(np.quantile(present, 0.02))
    return {
        "queries": len(gone),
        "AUC": round(float((present[:, None] > gone).mean()), 4),
        f"absent, said so (relevance below {MATCH})": round(float((gone < MATCH).mean()), 4),
        "present, said not to be there": round(float((present < MATCH).mean()), 4),
        "absent, said so, where 2 % of the present ones are wrongly": round(float((gone < limit).mean()), 4),
    }


def rises(index: Index, words: list[str]) -> dict[str, int]:
    """Lists of words by chance."""
    random = np.random.default_rng(1)
    found = {"queries": QUERIES, "relevance rises": 0, "a match behind a weaker one": 0}
    for number in range(QUERIES):
        text = " ".join(random.choice(words, random.integers(1, 6)))
        text += f" -{random.choice(words)}" if number % 5 == 0 else ""
        hits = index.search(text, options=SearchOptions(k=50, collapse=bool(number % 2)))
        known = [hit.relevance for hit in hits if hit.relevance is not None]
        found["relevance rises"] += known != sorted(known, reverse=True)
        matches = [hit.match for hit in hits]
        found["a match behind a weaker one"] += matches != sorted(matches, reverse=True)
    return found


def main() -> None:
    """Measures and writes."""
    parser = command_line(__doc__)
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    data, encoder = data_folder(), open_encoder("builtin")
    reference = fit_scale(encoder.spec).reference
    assert reference is not None
    found = fitting.libraries(data, encoder, reference, options.detector, options.cache)
    curve = left_out(found, "photos")
    dev = (data / "flickr8k" / "dev.txt").read_text().split()
    folders = {
        "photos": sorted((data / "photos" / "images").iterdir()),
        "Flickr8k dev": [data / "flickr8k" / "images" / name for name in dev],
        "coco": sorted((data / "coco" / "images").iterdir())[::3],
    }
    counted = {}
    with tempfile.TemporaryDirectory() as work:
        for name, files in folders.items():
            with Index.open(Path(work) / name, create=True, encoder=encoder) as index:
                vectors = fitting.photo_vectors(encoder, files, options.cache)
                rows = [{"path": str(file), "modality": "image"} for file in files]
                index.add_embeddings(vectors, rows, normalize=True)
                counted[name] = rises(index, [*fitting.WORDS, *fitting.COCO_NAMES, "a", "red", "two", "photo"])
    figures = {
        "encoder": encoder.spec.describe(),
        "match from": MATCH,
        "curve": dict(zip(fitting.Curve.__dataclass_fields__, astuple(reference.curve or curve), strict=True)),
        "reliability": {name: judged(found, name) for name in found},
        "names of the photos": without_a_match(found["photos"], curve),
        "absent names": absent(data, encoder, reference, curve, options.cache),
        "rises": counted,
    }
    publish("relevance", figures, options)


if __name__ == "__main__":
    main()
