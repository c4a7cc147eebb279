"""How well questions are answered beyond plain nearest neighbours: ``python benchmarks/query_quality.py [--fast]``.

``$MMSEARCH_TEST_DATA`` names a folder with ``photos/`` (images, labels.jsonl) and ``flickr8k/`` (images, captions.tsv,
dev.txt). Writes ``benchmarks/results/query_quality.json``:

- exclusion: "A -B" for every pair of object names that some photo shows together and some photo shows A without B;
  precision@5 and how much of B still shows, against subtracting the vectors (``A - w B``) and against not excluding
  at all; and where there are five right photos to find, so that 1 can be reached.
- folders: photos dealt into folders named after places at random; recall@20 of the names, with and without words.
- captions: the first caption of 500 images of Flickr8k dev lies beside each as a text file, the second and third are
  searched for; hit@k with and without words. And the first in all of dev, where no file has words: nothing may change.
- corrections: hubness, centring and prompts on and off; R@k on captions, mAP on object names.
- pointing: the maximum of the heat map inside a box of the object searched for (objects of 2 to 40 % of the picture),
  and in the right half of collages of two photos; ``--fast`` leaves it out.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common.environment import data_folder
from common.output import command_line, publish
from PIL import Image

from mmsearch.api import Index
from mmsearch.evaluate import EvaluationOptions
from mmsearch.evaluate.metrics import average_precision, two_way_recall
from mmsearch.models.encoders.base import Encoder, FloatArray
from mmsearch.query import SearchOptions
from mmsearch.query.calibrate.calibration import fit_scale, refresh_calibration
from mmsearch.query.calibrate.caption_bank import generic_captions
from mmsearch.query.calibrate.fit import hubness_of_passages, hubness_of_vectors, learned_numbers, weights
from mmsearch.query.heat import GRID, windows_map
from mmsearch.query.options import ALPHA
from mmsearch.store.local.store import LocalStore

PLACES = ("zermatt", "lisbon", "oslo", "kyoto", "marrakesh", "dublin", "quito", "perth")


def photo_labels(data: Path) -> list[dict[str, Any]]:
    """The labels of the photos, as they stand in the file."""
    return [json.loads(line) for line in (data / "photos" / "labels.jsonl").read_text().splitlines()]


def shown(labels: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Object name → the photos that show it."""
    names = sorted({name for label in labels for name in label["objects"]})
    return {name: {label["image"] for label in labels if name in label["objects"]} for name in names}


def exclusion(index: Index, of_name: dict[str, set[str]]) -> dict[str, Any]:
    """Precision@5 of "A without B", by three ways to leave B out."""
    pairs = [(a, b) for a in of_name for b in of_name if a != b and of_name[a] & of_name[b] and of_name[a] - of_name[b]]
    encoder = index.encoder()
    vectors = dict(zip(of_name, encoder.encode_texts(list(of_name)), strict=True))

    enough = np.array([len(of_name[a] - of_name[b]) >= 5 for a, b in pairs])

    def figures(answers: list[list[str]]) -> dict[str, float]:
        cases = list(zip(answers, pairs, strict=True))
        right = np.array([sum(name in of_name[a] - of_name[b] for name in names[:5]) / 5 for names, (a, b) in cases])
        shown = [sum(name in of_name[b] for name in names[:5]) / 5 for names, (_, b) in cases]
        return {
            "precision@5": round(float(right.mean()), 4),
            "precision@5 where at least 5 photos are right": round(float(right[enough].mean()), 4),
            "first 5 that show B": round(float(np.mean(shown)), 4),
        }

    by_filter = index.search_many([f'{a} -"{b}"' for a, b in pairs], k=5, words=False)
    plain = index.search_many([a for a, _ in pairs], k=5, words=False)
    everything = index.search_many([a for a, _ in pairs], k=1000, words=False)
    perfect = [
        [name for name in _names(hits) if name not in of_name[b]]
        for hits, (_, b) in zip(everything, pairs, strict=True)
    ]
    found: dict[str, Any] = {
        "pairs": len(pairs),
        "pairs with at least 5 right photos": int(enough.sum()),
        "calibrated filter": figures([_names(hits) for hits in by_filter]),
        "no exclusion": figures([_names(hits) for hits in plain]),
        "labels used to exclude (the most that any exclusion can reach)": figures(perfect),
    }
    for weight in (0.25, 0.5, 1.0):
        queries = np.stack([vectors[a] - weight * vectors[b] for a, b in pairs])
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        answers = index.search(vector=queries, k=5)
        found[f"subtraction, weight {weight:g}"] = figures([_names(hits) for hits in answers])
    return found


def folders(photos: list[Path], encoder: Encoder, work: Path) -> dict[str, float]:
    """Recall@20 of the names of places, with and without words."""
    random = np.random.default_rng(0)
    order = random.permutation(len(photos))
    of_place: dict[str, set[str]] = {place: set() for place in PLACES}
    for number, photo in enumerate(order):
        place = PLACES[number % len(PLACES)]
        (work / "trips" / place).mkdir(parents=True, exist_ok=True)
        shutil.copy(photos[photo], work / "trips" / place)
        of_place[place].add(photos[photo].name)
    found = {}
    with Index.open(work / "trips-index", create=True, encoder=encoder) as index:
        index.add(work / "trips")
        for name, words in (("with words", True), ("vectors alone", False)):
            recalls = []
            for place, expected in of_place.items():
                hits = set(_names(index.search(place, k=20, words=words)))
                recalls.append(len(hits & expected) / len(expected))
            found[f"recall@20 {name}"] = round(float(np.mean(recalls)), 4)
    return found


def captions_beside(data: Path, dev: list[str], flickr: Index, work: Path) -> dict[str, dict[str, float]]:
    """hit@k of captions where another caption of the same image is known, and where nothing is."""
    said: dict[str, list[str]] = {}
    for line in (data / "flickr8k" / "captions.tsv").read_text().splitlines():
        image, caption = line.split("\t", 1)
        said.setdefault(image, []).append(caption)
    chosen = dev[:500]
    (work / "beside").mkdir()
    for name in chosen:
        shutil.copy(data / "flickr8k" / "images" / name, work / "beside")
        (work / "beside" / name).with_suffix(".txt").write_text(said[name][0])
    with Index.open(work / "beside-index", create=True, encoder=flickr.encoder()) as index:
        index.add(work / "beside")
        others = [(name, caption) for name in chosen for caption in said[name][1:3]]
        alone = [(name, said[name][0]) for name in chosen]
        return {
            "captions known, with words": _hits_at(index, others, SearchOptions().words),
            "captions known, vectors alone": _hits_at(index, others, 0.0),
            "nothing known, with words": _hits_at(flickr, alone, SearchOptions().words),
            "nothing known, vectors alone": _hits_at(flickr, alone, 0.0),
        }


def _hits_at(index: Index, captions: list[tuple[str, str]], words: float) -> dict[str, float]:
    answers = index.search_many([text for _, text in captions], raw=True, options=SearchOptions(k=10, words=words))
    places = [
        next((hit.rank for hit in hits if Path(hit.path).name == name), 11)
        for (name, _), hits in zip(captions, answers, strict=True)
    ]
    return {f"hit@{k}": round(100 * float(np.mean([place <= k for place in places])), 2) for k in (1, 5, 10)}


def corrections(
    captions: tuple[list[str], FloatArray, np.ndarray], images: FloatArray, photos: FloatArray,
    of_name: dict[str, np.ndarray], encoder: Encoder,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """R@k of captions both ways, and mAP of object names, for each correction alone."""
    texts, owner = captions[1], captions[2]
    bank = encoder.encode_texts(generic_captions())
    names = list(of_name)
    plain = encoder.encode_queries(names, "en")
    prompts = ("a photo of a {}.", "a picture of a {}.", "a {} in a scene.", "a close-up photo of a {}.")
    ensemble = _unit(np.mean([encoder.encode_queries([p.format(n) for n in names], "en") for p in prompts], axis=0))
    prompted = encoder.encode_queries([prompts[0].format(name) for name in names], "en")
    nearness = hubness_of_passages(texts, encoder.photo_sample(), fit_scale(encoder.spec).reference)
    means = (bank.mean(axis=0), images.mean(axis=0), photos.mean(axis=0))

    def hubs(alpha: float, centroids: FloatArray | None, are_weighed: bool = True) -> dict[str, float]:
        """NNN; every question counts in full where it is not weighed."""
        shifts = [alpha * hubness_of_vectors(gallery, gallery @ bank.T, centroids) for gallery in (images, photos)]
        counts = [
            weights(rows, learned_numbers(centroids)) if are_weighed else np.ones(len(rows)) for rows in (texts, plain)
        ]
        return figures(texts, images, shifts[0], plain, photos, shifts[1], counts, alpha * nearness)

    def figures(
        texts: FloatArray, images: FloatArray, shift: Any, queries: FloatArray, photos: FloatArray, other: Any,
        counts: Any = (0.0, 0.0), of_texts: Any = 0.0,
    ) -> dict[str, float]:  # fmt: skip
        # A bias a gallery item is one more dimension: [v, -b] and [q, how much it counts].
        queries_plus, photos_plus = _extended(queries, counts[1]), _extended(photos, -other)
        texts_plus, images_plus = _extended(texts, counts[0]), _extended(images, -shift)
        two_way = two_way_recall(texts_plus, images_plus, [[int(i)] for i in owner])
        back = two_way_recall(_extended(texts, -of_texts), _extended(images, 1.0), [[int(i)] for i in owner])
        scores = queries_plus @ photos_plus.T
        mean_ap = np.mean(
            [
                average_precision(np.argsort(-row, kind="stable").tolist(), np.flatnonzero(of_name[name]).tolist())
                for row, name in zip(scores, names, strict=True)
            ]
        )
        return {
            **{f"R@{k} text→image": round(100 * two_way.text_to_image.recall(k), 2) for k in (1, 5, 10)},
            **{f"R@{k} image→text": round(100 * back.image_to_text.recall(k), 2) for k in (1, 5, 10)},
            "mAP object names": round(float(mean_ap), 4),
        }

    none_i, none_p = np.zeros(len(images)), np.zeros(len(photos))
    centred = [
        _unit(a - 0.5 * b)
        for a, b in zip((texts, images, photos, plain), (means[0], means[1], means[2], means[0]), strict=True)
    ]
    return {
        "cosines alone": figures(texts, images, none_i, plain, photos, none_p),
        f"NNN, own captions, alpha {ALPHA} (the default)": hubs(ALPHA, encoder.caption_centroids()),
        "NNN, own captions, alpha 0.25": hubs(0.25, encoder.caption_centroids()),
        "NNN, own captions, alpha 0.75": hubs(0.75, encoder.caption_centroids()),
        f"NNN, own captions, alpha {ALPHA}, not weighed": hubs(ALPHA, encoder.caption_centroids(), are_weighed=False),
        f"NNN, generic captions, alpha {ALPHA}": hubs(ALPHA, None),
        "centring, half": figures(centred[0], centred[1], none_i, centred[3], centred[2], none_p),
        "one prompt (names only)": figures(texts, images, none_i, prompted, photos, none_p),
        "prompt ensemble (names only)": figures(texts, images, none_i, ensemble, photos, none_p),
    }


def pointing(data: Path, encoder: Encoder, collages: int = 60) -> dict[str, Any]:
    """How often the maximum of the heat map is where the object is."""
    hits, centre, count = 0, 0, 0
    for label in photo_labels(data):
        picture = Image.open(data / "photos" / "images" / label["image"]).convert("RGB")
        for name in label["objects"]:
            boxes = [box[1:] for box in label["boxes"] if box[0] == name]
            if not 0.02 <= _covered(boxes) <= 0.40:
                continue
            heat = windows_map(encoder, picture, encoder.encode_texts([name])[0])
            row, column = np.unravel_index(int(heat.argmax()), heat.shape)
            hits += _inside(boxes, (column + 0.5) / GRID, (row + 0.5) / GRID)
            centre, count = centre + _inside(boxes, 0.5, 0.5), count + 1
    right = _collages(data, encoder, collages)
    return {
        "objects": count,
        "maximum inside": round(hits / count, 4),
        "centre of the picture inside": round(centre / count, 4),
        "collages": collages,
        "right half": round(right, 4),
    }


def _collages(data: Path, encoder: Encoder, count: int) -> float:
    """Two photos side by side, one shows the object, the other does not; is the maximum in the right half?"""
    random, labels = np.random.default_rng(1), photo_labels(data)
    right = 0
    for number in range(count):
        while True:
            one, other = (labels[int(i)] for i in random.choice(len(labels), 2, replace=False))
            names = sorted(set(one["objects"]) - set(other["objects"]))
            names = [n for n in names if _covered([b[1:] for b in one["boxes"] if b[0] == n]) >= 0.05]
            if names:
                break
        name = names[int(random.integers(len(names)))]
        sides = [one, other] if number % 2 else [other, one]
        pictures = [
            Image.open(data / "photos" / "images" / s["image"]).convert("RGB").resize((400, 400)) for s in sides
        ]
        collage = Image.new("RGB", (800, 400))
        for place, picture in enumerate(pictures):
            collage.paste(picture, (400 * place, 0))
        heat = windows_map(encoder, collage, encoder.encode_texts([name])[0])
        column = int(heat.argmax()) % GRID
        right += (column < GRID / 2) == (sides[0] is one)
    return right / count


def _covered(boxes: list[list[float]]) -> float:
    area = np.zeros((200, 200), dtype=bool)
    for left, top, end, bottom in boxes:
        area[int(200 * top) : round(200 * bottom), int(200 * left) : round(200 * end)] = True
    return float(area.mean())


def _inside(boxes: list[list[float]], x: float, y: float) -> bool:
    return any(left <= x <= right and top <= y <= bottom for left, top, right, bottom in boxes)


def _names(hits: list[Any]) -> list[str]:
    return [Path(hit.path).name for hit in hits]


def _unit(rows: FloatArray) -> FloatArray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _extended(rows: FloatArray, last: Any) -> FloatArray:
    return np.concatenate([rows, np.broadcast_to(np.asarray(last, dtype=np.float32), (len(rows),))[:, None]], axis=1)


def _vectors(index: Index, names: list[str]) -> FloatArray:
    """The vectors of files, in the order of their names."""
    directory = index._directory
    rows = dict(
        directory.catalogue.sql.execute(
            "SELECT d.path, v.row FROM documents d JOIN segments s ON s.content_id = d.content_id "
            "JOIN vectors v ON v.segment_id = s.id"
        ).fetchall()
    )
    return directory.matrix(directory.space())[[rows[name] for name in names]].astype(np.float32)


def main() -> None:
    """Indexes, measures, prints, writes."""
    parser = command_line(__doc__)
    parser.add_argument("--fast", action="store_true", help="without the pointing game; only prints")
    options, data = parser.parse_args(), data_folder()
    labels = photo_labels(data)
    of_name = shown(labels)
    files = [data / "photos" / "images" / label["image"] for label in labels]
    dev = (data / "flickr8k" / "dev.txt").read_text().split()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        (work / "dev").mkdir()
        for name in dev:
            shutil.copy(data / "flickr8k" / "images" / name, work / "dev")
        with (
            Index.open(work / "photos-index", create=True, encoder="builtin") as photos,
            Index.open(work / "dev-index", create=True, encoder=photos.encoder()) as flickr,
        ):
            encoder = photos.encoder()
            photos.add(data / "photos" / "images")
            flickr.add(work / "dev")
            refresh_calibration(LocalStore(photos._directory), encoder)
            place = {name: number for number, name in enumerate(dev)}
            lines = [line.split("\t", 1) for line in (data / "flickr8k" / "captions.tsv").read_text().splitlines()]
            captions = [(place[image], caption) for image, caption in lines if image in place]
            texts = encoder.encode_texts([caption for _, caption in captions])
            owner = np.array([number for number, _ in captions])
            images = _vectors(flickr, dev)
            vectors = _vectors(photos, [file.name for file in files])
            relevant = {name: np.array([file.name in found for file in files]) for name, found in of_name.items()}
            figures = {
                "encoder": encoder.spec.describe(),
                "exclusion, precision@5": exclusion(photos, of_name),
                "folder names": folders(files, encoder, work),
                "captions beside": captions_beside(data, dev, flickr, work),
                "corrections": corrections(([], texts, owner), images, vectors, relevant, encoder),
                "evaluation of the photos": _evaluated(photos, data),
            }
            if not options.fast:
                figures["pointing game"] = pointing(data, encoder)
    options.no_write = options.no_write or options.fast
    publish("query_quality", figures, options)


def _evaluated(index: Index, data: Path) -> dict[str, Any]:
    found = {}
    for name, alpha in (("cosines alone", 0.0), ("with NNN", SearchOptions().hubness)):
        run = index.evaluate(data / "photos" / "labels.jsonl", options=EvaluationOptions(alpha=alpha))
        found[name] = {key: round(f["estimate"], 4) for key, f in run.figures.items() if f["estimate"] is not None}
    return found


if __name__ == "__main__":
    main()
