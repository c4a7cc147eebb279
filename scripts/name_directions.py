"""Makes `names.npz` beside the built-in weights: run it when these have changed, before `fit_relevance.py`.

    python scripts/name_directions.py DATA DETECTOR [CACHE]

DATA is a folder with ``flickr8k/`` (images, captions.tsv, train.txt) and ``coco/images``, DETECTOR NanoDet as an ONNX
file (see ``scripts/learn_objects.py``); vectors of photos are kept in the folder CACHE, what the detector says beside
the detector. Two teachers say what photos show:

- the detector, of the 80 objects of COCO, on the COCO photos and Flickr8k's training photos;
- captions by people, of the single words that those of `PICTURES` training photos or more have.

A ridge regression from the vectors of the photos to what each says gives a direction for each name. Solved in closed
form, so there is no seed and nothing to stop. The 128 labelled photos and Flickr8k's dev split are not looked at.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from fit_relevance import COCO_NAMES, FORMS, detected, photo_vectors
from fit_second_look import LEARNED, captions_of
from object_layer import LEAST, MOST, ridge_regression
from second_look_fit import word_shares

from mmsearch.models.encoders.base import EncoderOptions, FloatArray
from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS, BuiltinEncoder
from mmsearch.models.encoders.name_directions import NameDirections
from mmsearch.query.fuse import content_words

FILE = "names.npz"
PICTURES = 30
RIDGES = {"objects": 4_000.0, "words": 20_000.0}
"""Penalties on the squared weights, for vectors of spread 1. Captions say less of a photo than a detector does."""
LENGTHS = {"objects": 1.1, "words": 0.3}
"""How much a direction counts beside a query of length 1; captions were written for one kind of photos."""
MIXED = 0.3
"""What of a word's direction an object of the same name gets."""


def unit(rows: np.ndarray) -> FloatArray:
    """Rows divided by their lengths."""
    found: FloatArray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return found


def directions(vectors: FloatArray, targets: np.ndarray, ridge: float) -> FloatArray:
    """(names, dim) of length 1 from the vectors of n photos and (n, names) of what they show."""
    return unit(ridge_regression(vectors, (targets - targets.mean(0)) / targets.std(0), ridge)[0])


def named(encoder: BuiltinEncoder, names: list[str]) -> FloatArray:
    """(names, m) of length 1: the mean over several ways to say a name, in the half of the space that knows names."""
    forms = [unit(encoder.encode_texts([form(name) for name in names])[:, LEARNED:]) for form in FORMS.values()]
    return unit(np.sum(forms, axis=0))


def main(data: Path, detector: Path, cache: Path | None) -> None:
    """Learns, writes the file and names it in ``encoder.json``."""
    encoder = BuiltinEncoder(options=EncoderOptions(threads=2))
    flickr = data / "flickr8k"
    train, captions = (flickr / "train.txt").read_text(encoding="utf-8").split(), captions_of(flickr)
    of_flickr, of_coco = [flickr / "images" / name for name in train], sorted((data / "coco" / "images").iterdir())
    photos = [photo_vectors(encoder, files, cache) for files in (of_coco, of_flickr)]
    said = np.hstack([detected(detector, files) for files in (of_coco, of_flickr)]).T
    held = np.clip(said.astype(np.float64), LEAST, MOST)
    objects = directions(np.concatenate(photos), np.log(held / (1 - held)), RIDGES["objects"])
    terms, shares = word_shares([captions[name] for name in train], PICTURES)
    chosen = [
        place for place, term in enumerate(terms) if len(term) > 2 and term.isalpha() and content_words([term])
    ]  # fmt: skip
    words = [terms[place] for place in chosen]
    usual = shares[:, chosen].astype(np.float64)
    of_words = directions(photos[1], usual, RIDGES["words"])
    for place, name in enumerate(COCO_NAMES):
        if name in words:
            objects[place : place + 1] = unit(objects[place : place + 1] + MIXED * of_words[words.index(name)])
    others = [place for place, word in enumerate(words) if word not in COCO_NAMES]
    names = named(encoder, [*COCO_NAMES, *(words[place] for place in others)])
    found = np.concatenate([LENGTHS["objects"] * objects, LENGTHS["words"] * of_words[others]])
    NameDirections(names, found).write(SHIPPED_WEIGHTS / FILE, encoder.spec.digest)
    path = SHIPPED_WEIGHTS / "encoder.json"
    description = json.loads(path.read_text(encoding="utf-8")) | {"names": {"file": FILE}}
    path.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(COCO_NAMES)} objects, {len(others)} words\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
