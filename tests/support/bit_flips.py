"""An index with every kind of file, one bit of one file turned, and whether anybody notices."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Literal

import numpy as np

from mmsearch.api import Index
from mmsearch.core.errors import MmsearchError
from mmsearch.store.local.optimize import OptimizeOptions
from tests.support.colours import COLOURS, ColourEncoder, save_colour

Outcome = Literal["noticed", "refused", "no effect", "MISSED"]


def make_index(folder: Path, imported: int = 1500) -> Path:
    """Photos, texts and imported vectors, searched through a graph, and a calibration; closed. Its place."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    for number, colour in enumerate(COLOURS):
        save_colour(photos / f"{colour}.png", colour, seed=number)
        (photos / f"about {colour}.txt").write_text(f"a {colour} lawn")
        (photos / f"{colour}.png.txt").write_text(f"caption of {colour}")
    place = folder / "index"
    with Index.open(place, create=True, encoder=ColourEncoder()) as index:
        index.add(photos)
        vectors = np.random.default_rng(0).standard_normal((imported, 4)).astype(np.float32)
        rows = [{"path": f"http://x/{row}.jpg", "modality": "image", "caption": f"no {row}"} for row in range(imported)]
        index.add_embeddings(vectors, rows, normalize=True)
        index.optimize(OptimizeOptions(recipe="hnsw"))
        index.search("red")
    return place


def results(place: Path) -> list[object]:
    """What questions of every kind give."""
    with Index.open(place, encoder=ColourEncoder()) as index:
        found: list[object] = []
        for question in ("red", "blue -green", "lawn type:text", "type:image", '"no 77"', "violet path:*.png"):
            found.append([hit.as_json() for hit in index.search(question, k=20)])
        found.append([hit.as_json() for hit in index.search(vector=np.eye(4)[0], k=20)])
        return found


def flip(place: Path, pristine: Path, right: list[object], seed: int) -> tuple[str, Outcome]:
    """Turns one bit that ``seed`` chooses in a fresh copy; the file, and what came of it."""
    chance = random.Random(seed)
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(pristine, place)
    file = chance.choice(sorted(path for path in place.iterdir() if path.stat().st_size))
    data = bytearray(file.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)
    name = file.name
    try:
        with Index.open(place, encoder=ColourEncoder()) as index:
            if not index.verify().clean:
                return name, "noticed"
    except MmsearchError:
        return name, "refused"
    return name, "no effect" if results(place) == right else "MISSED"
