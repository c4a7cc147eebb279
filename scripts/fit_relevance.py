"""Fits how often hits are right by their scores, and writes it into ``query/calibrate/reference.npz`` of an encoder.

    python scripts/fit_relevance.py [--encoder builtin] [--detector nanodet.onnx] [--write]

Run it when the weights have changed, after ``scripts/reference.py``; for another encoder give both ``--encoder``.
``$MMSEARCH_TEST_DATA`` names a folder with ``photos/``, ``flickr8k/`` and ``coco/``. The labelled libraries:

- photos: COCO's names × the photos that show them, by COCO's annotations.
- dev, names: words × the photos of Flickr8k dev of which a caption has them.
- dev, captions: captions × their own photo; and the same of photos of Flickr8k train.
- coco: COCO's names × COCO photos in libraries of 3 to 2,000, by the chances that a detector gives; the detector of
  ``scripts/learn_objects.py``, and only with ``--detector``. Its scores are turned into chances on the photos.

Names are plain, with an article, in plural and as "a photo of …". Each library weighs the same; without ``--write`` it
only prints what each library left out would get from the others.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from learn_objects import NAMES, objects_in
from PIL import Image

from mmsearch.models.encoders import open_encoder
from mmsearch.models.encoders.base import Encoder, FloatArray
from mmsearch.query.calibrate.calibration import fit_scale
from mmsearch.query.calibrate.caption_bank import bank_vectors, generic_captions
from mmsearch.query.calibrate.fit import (
    FREQUENT,
    Curve,
    Reference,
    hubness_of_vectors,
    learned_numbers,
    reference_file,
    weights,
)
from mmsearch.query.fuse import content_words
from mmsearch.query.options import ALPHA

FIRST = 10
"""So many of the first hits of each query are what relevance is shown of."""
COCO_NAMES = " ".join(NAMES.split()).split(", ")
_WORDS = """
    dog man woman person people child boy girl baby bicycle motorcycle car truck horse ball football basketball
    tennis frisbee skateboard snowboard surfboard boat kayak pool beach lake mountain snow tree flower guitar animal
    camera hat helmet sunglasses umbrella tent swing slide trampoline fountain bench couch bed bird sheep cow camel
    rope stick balloon kite drum book newspaper phone food fire bridge statue train mask costume dress bikini
    wetsuit backpack rock cliff waterfall sled hockey soccer volleyball wedding street forest puppy greyhound ladder
    sign flag toy bottle cup water grass sand ocean river field road city building wall crowd jacket shirt race bus
    elephant chair table window fence path stairs ice park playground microphone cat
"""
WORDS = _WORDS.split()
PEOPLE = (
    "man men woman women boy boys girl girls child children kid kids baby toddler player players people person lady"
)
MEANT = {
    "person": PEOPLE, "people": PEOPLE, "child": "child children boy boys girl girls kid kids toddler baby",
    "dog": "dog dogs puppy puppies greyhound", "animal": "animal dog dogs puppy horse cat bird cow sheep",
    "bicycle": "bicycle bicycles bike bikes", "motorcycle": "motorcycle motorcycles motorbike",
    "ball": "ball balls football basketball baseball volleyball",
}  # fmt: skip
_PLURALS = {"person": "people", "man": "men", "woman": "women", "child": "children", "mouse": "mice", "knife": "knives",
            "puppy": "puppies", "baby": "babies"}  # fmt: skip


def plural(name: str) -> str:
    """Several of it."""
    if name in _PLURALS or name in ("people", "sheep", "skis", "scissors", "stairs"):
        return _PLURALS.get(name, name)
    return name + ("es" if name.endswith(("ss", "s", "ch", "sh", "x")) else "s")


def article(name: str) -> str:
    """One of it."""
    return name if name in ("people", "skis", "scissors", "stairs") else f"{'an' if name[0] in 'aeio' else 'a'} {name}"


FORMS: dict[str, Callable[[str], str]] = {
    "plain": str, "article": article, "plural": plural, "photo": lambda name: f"a photo of {article(name)}",
}  # fmt: skip


@dataclass(frozen=True)
class Hits:
    """The first hits of queries: ``z``, ``n`` and ``f`` as in `mmsearch.query.calibrate.fit` and how likely each is
    ``right``, all (queries, hits); ``shown`` (queries,): how many photos of the library are right.
    """

    z: FloatArray
    n: FloatArray
    f: FloatArray
    right: FloatArray
    shown: FloatArray

    @property
    def rows(self) -> FloatArray:
        """(all hits, 5): what a to e are multiplied by."""
        z, n, f = self.z.ravel(), self.n.ravel(), self.f.ravel()
        return np.stack([np.ones_like(z), z, n, n * z, f], axis=1)


def hits_of(
    texts: Sequence[str], right: FloatArray, photos: FloatArray, encoder: Encoder, reference: Reference,
    language: str = "en",
) -> Hits:  # fmt: skip
    """The first hits for ``texts`` among ``photos`` (n, dim), which are right by ``right`` (texts, n)."""
    queries, learned = encoder.encode_queries(list(texts), language), learned_numbers(encoder.caption_centroids())
    bank = bank_vectors(encoder, generic_captions()).astype(np.float32)
    hubness = ALPHA * hubness_of_vectors(photos, photos @ bank.T, encoder.caption_centroids())
    counts = weights(queries, learned)
    scores = queries @ photos.T - counts[:, None] * hubness
    order = np.argsort(-scores, axis=1, kind="stable")[:, :FIRST]
    spreads = [reference.spread(query, float(count)) for query, count in zip(queries, counts, strict=True)]
    of_query = lambda values: np.repeat(np.array(values)[:, None], order.shape[1], axis=1)  # noqa: E731
    z = (np.take_along_axis(scores, order, 1) - of_query([s.mean for s in spreads])) / of_query(
        [s.deviation for s in spreads]
    )
    words = [encoder.telling_words(text, language) or max(1, len(content_words([text]))) for text in texts]
    n = of_query(np.log(words))
    f = of_query([max(FREQUENT - s.high, 0.0) for s in spreads])
    return Hits(z, n, f, np.take_along_axis(right, order, 1), right.sum(axis=1))


def joined(parts: Sequence[Hits]) -> Hits:
    """Hits of one shape as one."""
    return Hits(*(np.concatenate([getattr(part, name) for part in parts]) for name in Hits.__dataclass_fields__))


def fitted(libraries: Sequence[Sequence[Hits]]) -> Curve:
    """Logistic regression by Newton's method. Every library weighs the same; a hit counts by how likely it is right."""
    rows = np.concatenate([hits.rows for library in libraries for hits in library])
    right = np.concatenate([hits.right.ravel() for library in libraries for hits in library])
    sizes = [sum(hits.right.size for hits in library) for library in libraries]
    share = np.concatenate([np.full(size, 1000 / size) for size in sizes])
    numbers = np.zeros(rows.shape[1])
    for _ in range(50):
        chances = 1 / (1 + np.exp(-rows @ numbers))
        slope = rows.T @ (share * (chances - right)) + 1e-3 * numbers
        bend = (rows * (share * chances * (1 - chances))[:, None]).T @ rows + 1e-3 * np.eye(len(numbers))
        numbers -= np.linalg.solve(bend, slope)
    curve = Curve(*(round(float(number), 4) for number in numbers))
    assert curve.score > 0 and curve.words_and_score >= 0, f"relevance must rise with the score: {curve}"
    return curve


def chances(curve: Curve, hits: Hits) -> FloatArray:
    """The relevance of hits, in their shape."""
    found: FloatArray = (1 / (1 + np.exp(-hits.rows @ np.array(astuple(curve))))).reshape(hits.z.shape)
    return found


def reliability(relevance: FloatArray, right: FloatArray, bins: int = 10) -> tuple[float, list[dict[str, float]]]:
    """The expected calibration error of hits over equal bins, and for each bin what was promised and what was true."""
    place = np.minimum((relevance * bins).astype(int), bins - 1)
    table = []
    for number in range(bins):
        inside = place == number
        if inside.any():
            promised, true = float(relevance[inside].mean()), float(right[inside].mean())
            row = {"from": number / bins, "hits": int(inside.sum()), "relevance": promised, "right": true}
            table.append({name: round(value, 3) for name, value in row.items()})
    error = sum(row["hits"] * abs(row["relevance"] - row["right"]) for row in table) / len(relevance)
    return float(error), table


def _named(files: Sequence[Path]) -> str:
    return sha256("\n".join(file.name for file in files).encode()).hexdigest()[:12]


def photo_vectors(encoder: Encoder, files: Sequence[Path], cache: Path | None = None) -> FloatArray:
    """The vectors of pictures, (n, dim); kept in ``cache``, by what the encoder is."""
    kept = None if cache is None else cache / f"{encoder.spec.key}-{_named(files)}.npy"
    if kept is not None and kept.exists():
        found: FloatArray = np.load(kept)
        return found
    parts = [
        encoder.encode_images([Image.open(file).convert("RGB") for file in files[start : start + 64]])
        for start in range(0, len(files), 64)
    ]
    vectors = np.concatenate(parts).astype(np.float16).astype(np.float32)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, vectors)
    return vectors


def detected(detector: Path, files: Sequence[Path]) -> FloatArray:
    """What a detector says of pictures, (names, n), 0 to 1; kept beside it."""
    import onnxruntime

    kept = detector.with_name(f"{detector.stem}-{_named(files)}.npy")
    if not kept.exists():
        session = onnxruntime.InferenceSession(str(detector), providers=["CPUExecutionProvider"])
        np.save(kept, np.stack([objects_in(session, Image.open(file).convert("RGB")) for file in files]))
    found: FloatArray = np.load(kept).T
    return found


def libraries(
    data: Path, encoder: Encoder, reference: Reference, detector: Path | None, cache: Path | None
) -> dict[str, list[Hits]]:
    """The labelled libraries by name, each as several sets of hits."""
    look = lambda texts, right, photos: hits_of(texts, right, photos, encoder, reference)  # noqa: E731
    files = sorted((data / "photos" / "images").iterdir())
    labels = [json.loads(line) for line in (data / "photos" / "labels.jsonl").read_text().splitlines()]
    objects = {label["image"]: set(label["objects"]) for label in labels}
    shown = np.array([[name in objects[file.name] for file in files] for name in COCO_NAMES], dtype=float)
    photos = photo_vectors(encoder, files, cache)
    said: dict[str, list[str]] = {}
    for line in (data / "flickr8k" / "captions.tsv").read_text(encoding="utf-8").splitlines():
        image, caption = line.split("\t", 1)
        said.setdefault(image, []).append(caption)
    of = lambda names: [data / "flickr8k" / "images" / name for name in names]  # noqa: E731
    dev = (data / "flickr8k" / "dev.txt").read_text().split()
    train = (data / "flickr8k" / "train.txt").read_text().split()[2::6]  # none of those in `reference.npz`
    words = [set(re.findall("[a-z]+", " ".join(said[name]).lower())) for name in dev]
    mentioned = np.array(
        [[bool(found & {*MEANT.get(w, w).split(), plural(w)}) for found in words] for w in WORDS], dtype=float
    )
    in_dev, in_train = photo_vectors(encoder, of(dev), cache), photo_vectors(encoder, of(train), cache)
    captions = [(place, caption) for place, name in enumerate(dev) for caption in said[name][:2]]
    places = np.array([place for place, _ in captions])
    own = (places[:, None] == np.arange(len(dev))).astype(float)
    by_form = lambda names, right, vectors: [  # noqa: E731
        look([form(name) for name in names], right, vectors) for form in FORMS.values()
    ]
    found = {
        "photos": by_form(COCO_NAMES, shown, photos),
        "dev, names": by_form(WORDS, mentioned, in_dev),
        "dev, captions": [look([caption for _, caption in captions], own, in_dev)],
        "train, captions": [look([said[name][0] for name in train], np.eye(len(train)), in_train)],
    }
    if detector is not None:
        some = sorted((data / "coco" / "images").iterdir())[::3]
        vectors = photo_vectors(encoder, some, cache)
        found["coco"] = [
            hits
            for chosen, chance in coco_libraries(detected(detector, some), detected(detector, files), shown)
            for hits in by_form(COCO_NAMES, chance, vectors[chosen])
        ]
    return found


def coco_libraries(said: FloatArray, said_of_labelled: FloatArray, labels: FloatArray) -> list[tuple[Any, FloatArray]]:
    """Libraries of COCO photos of several sizes: which of them, and the chances (names, n) that they show each name."""
    random = np.random.default_rng(0)
    edges = np.quantile(said_of_labelled, np.linspace(0, 1, 200)[1:-1])
    bins = [labels[np.digitize(said_of_labelled, edges) == number] for number in range(len(edges) + 1)]
    rates = np.maximum.accumulate([part.mean() if part.size else 0.0 for part in bins])
    sizes = [3] * 3 + [8] * 3 + [30] * 3 + [128] * 9 + [500, said.shape[1]]
    chosen = [random.permutation(said.shape[1])[:size] for size in sizes]
    return [(some, rates[np.digitize(said[:, some], edges)]) for some in chosen]


def main() -> None:
    """Prints how well it does for libraries that were left out; fits all, and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="builtin")
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--cache", type=Path, help="a folder for the vectors of the photos")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    encoder = open_encoder(given.encoder)
    reference = fit_scale(encoder.spec).reference
    if reference is None:
        parser.error("run scripts/reference.py for this encoder before")
    found = libraries(Path(os.environ["MMSEARCH_TEST_DATA"]), encoder, reference, given.detector, given.cache)
    for name, library in found.items():
        curve = fitted([other for key, other in found.items() if key != name])
        error, _ = reliability(
            np.concatenate([chances(curve, hits).ravel() for hits in library]),
            np.concatenate([hits.right.ravel() for hits in library]),
        )
        sys.stdout.write(f"{name}: expected calibration error {error:.3f} from the others: {curve}\n")
    curve = fitted(list(found.values()))
    sys.stdout.write(f"all: {curve}\n")
    if given.write:
        path = reference_file(encoder.spec.digest)
        with np.load(path, allow_pickle=False) as stored:
            values = dict(stored)
        np.savez_compressed(path, allow_pickle=False, **{**values, "curve": np.array(astuple(curve))})


if __name__ == "__main__":
    main()
