"""Queries in other languages with the built-in encoder: ``python benchmarks/languages.py``.

``$MMSEARCH_TEST_DATA`` names a folder with ``photos/``, ``coco/`` and ``flickr8k/``: images, ``dev.txt``, captions in
``captions.tsv`` and ``captions_LANGUAGE.tsv``. Prints one JSON object and writes it to
``benchmarks/results/languages.json``.

- R@k: share of captions, one a photo and source, whose photo is among the first k of the dev photos that have captions
  in that language, by cosine alone; ``english``: taken for English, in %, of up to 500 captions; ``english words``: of
  4,000 single words out of captions, two letters or more.
- own captions: the same of ``photo_captions.tsv``, which was written for 32 of ``photos/`` in English and translated
  into nine languages (by the authors of this project, not by native speakers), among 1,000 photos: ``photos/`` and some
  of ``coco/``. Everyday scenes: bathrooms, buses, pizza, which Flickr8k hardly has.
- pairs: mean average precision of two object names at once ("狗 飞盘") on ``photos/``, those pairs that 1 photo or more
  shows.
- relevance: of the first 10 hits for names, names in a phrase, and 500 captions of dev, what relevance promises on
  average, how many are right, and the expected calibration error over ten bins, by the curve that ships, which was
  fitted to English queries for the same photos; ``as if English``: the error with telling words counted as in English.
- names: mean average precision of the 80 object names of ``coco_names.tsv`` on ``photos/``, as bare words; ``chosen``
  by the words themselves, ``said`` with the language given.
"""

from __future__ import annotations

import csv
import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common.environment import data_folder
from common.output import command_line, publish
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import fit_relevance as fitting

from mmsearch.models.encoders.builtin import BuiltinEncoder
from mmsearch.models.encoders.language_guess import words_of
from mmsearch.query.calibrate.calibration import fit_scale
from mmsearch.query.fuse import content_words

PHRASES = {
    "en": "a photo of a {}", "zh": "一张{}的照片", "de": "ein Foto von {}", "fr": "une photo de {}",
    "es": "una foto de {}",
}  # fmt: skip
FILES = {"en": "captions", **{code: f"captions_{code}" for code in ("zh", "de", "fr", "cs", "ar")}}


def rows(path: Path) -> list[dict[str, str]]:
    """A table with tabs."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def encoded(encoder: BuiltinEncoder, paths: list[Path]) -> np.ndarray:
    """Vectors of photos, (n, dim)."""
    found = []
    for start in range(0, len(paths), 64):
        found.append(encoder.encode_images([Image.open(path).convert("RGB") for path in paths[start : start + 64]]))
    return np.concatenate(found)


def recalls(encoder: BuiltinEncoder, captions: list[tuple[int, str]], photos: np.ndarray) -> dict[str, float]:
    """R@1 and R@10 of (photo, caption) among the photos that have one."""
    pool = sorted({photo for photo, _ in captions})
    own = np.searchsorted(pool, [photo for photo, _ in captions])
    scores = encoder.encode_queries([caption for _, caption in captions]) @ photos[pool].T
    before = (scores > scores[np.arange(len(own)), own][:, None]).sum(axis=1)
    return {"photos": len(pool), "R@1": round(100 * float((before < 1).mean()), 1),
            "R@10": round(100 * float((before < 10).mean()), 1)}  # fmt: skip


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Of one ranking, best first."""
    hits = relevant[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def own_captions(encoder: BuiltinEncoder, photos: np.ndarray, places: dict[str, int]) -> dict[str, Any]:
    """By language: R@1 and R@10 of captions outside of the style of Flickr8k among ``photos`` (n, dim)."""
    captions = rows(Path(__file__).parent / "photo_captions.tsv")
    own = np.array([places[row["image"]] for row in captions])
    found = {}
    for code in list(captions[0])[1:]:
        scores = encoder.encode_queries([row[code] for row in captions], code) @ photos.T
        before = (scores > scores[np.arange(len(own)), own][:, None]).sum(axis=1)
        found[code] = {f"R@{k}": round(100 * float((before < k).mean()), 1) for k in (1, 10)}
        english = [encoder.is_read_as_english(row[code]) for row in captions]
        found[code]["read as English"] = round(100 * sum(english) / len(english), 1)
    return found


def pairs_of_names(
    encoder: BuiltinEncoder, names: list[dict[str, str]], relevant: dict[str, np.ndarray], pictures: np.ndarray
) -> dict[str, float]:
    """By language: mAP of two names at once."""
    pairs = [
        (one, other) for place, one in enumerate(names) for other in names[:place]
        if (relevant[one["en"]] & relevant[other["en"]]).any()
    ]  # fmt: skip
    found = {}
    for code in names[0]:
        scores = encoder.encode_queries([f"{one[code]} {other[code]}" for one, other in pairs], code) @ pictures.T
        shown = [relevant[one["en"]] & relevant[other["en"]] for one, other in pairs]
        found[code] = round(float(np.mean([average_precision(*pair) for pair in zip(scores, shown, strict=True)])), 3)
    return found | {"pairs": len(pairs)}


def relevance(
    encoder: BuiltinEncoder, texts: list[str], right: np.ndarray, photos: np.ndarray, language: str
) -> dict[str, float]:
    """How well relevance holds for ``texts`` of which ``photos`` (n, dim) are ``right`` (texts, n)."""
    reference = fit_scale(encoder.spec).reference
    assert reference is not None and reference.curve is not None
    hits = fitting.hits_of(texts, right.astype(float), photos, encoder, reference, language)
    counted = np.log([max(1, len(content_words([text]))) for text in texts])
    plain = replace(hits, n=np.repeat(counted[:, None], hits.n.shape[1], axis=1))
    promised, as_english = (fitting.chances(reference.curve, one).ravel() for one in (hits, plain))
    of = lambda chances: round(fitting.reliability(chances, hits.right.ravel())[0], 3)  # noqa: E731
    return {
        "promised": round(float(promised.mean()), 3), "right": round(float(hits.right.mean()), 3),
        "expected calibration error": of(promised), "as if English": of(as_english),
    }  # fmt: skip


def single_words(captions: list[str]) -> list[str]:
    """Words of captions, drawn with a fixed seed."""
    words = [word for caption in captions for word in words_of(caption) if len(word) > 1]
    return random.Random(0).sample(words, 4000)


def main() -> None:
    """Measures and publishes."""
    options = command_line(__doc__).parse_args()
    data, encoder = data_folder(), BuiltinEncoder()
    dev = (data / "flickr8k/dev.txt").read_text(encoding="utf-8").split()
    place = {name: number for number, name in enumerate(dev)}
    photos = encoded(encoder, [data / "flickr8k/images" / name for name in dev])
    captions: dict[str, list[tuple[int, str]]] = {}
    chosen: dict[str, float] = {}
    chosen_words: dict[str, float] = {}
    for code, file in FILES.items():
        first: dict[tuple[str, int], str] = {}
        for row in rows(data / f"flickr8k/{file}.tsv"):
            if row["image"] in place:
                first.setdefault((row.get("source", ""), place[row["image"]]), row["caption"])
        for (source, photo), caption in first.items():
            captions.setdefault(f"{code} {source}".strip(), []).append((photo, caption))
        sample = list(first.values())[:500]
        chosen[code] = round(100 * sum(map(encoder.is_read_as_english, sample)) / len(sample), 1)
        if code not in ("zh", "ar"):  # whose letters tell
            words = single_words(list(first.values()))
            chosen_words[code] = round(100 * sum(map(encoder.is_read_as_english, words)) / len(words), 2)
    labels = [json.loads(line) for line in (data / "photos/labels.jsonl").read_text(encoding="utf-8").splitlines()]
    pictures = encoded(encoder, [data / "photos/images" / label["image"] for label in labels])
    names = rows(Path(__file__).parent / "coco_names.tsv")
    relevant = {row["en"]: np.array([row["en"] in label["objects"] for label in labels]) for row in names}
    precision = {
        code: {
            how: round(float(np.mean([
                average_precision(scores, relevant[row["en"]])
                for row, scores in zip(names, encoder.encode_queries([row[code] for row in names], said) @ pictures.T,
                                       strict=True)
                if relevant[row["en"]].any()
            ])), 3)
            for how, said in (("chosen", None), ("said", code))
        }
        for code in ("en", "zh", "de", "fr", "es")
    }  # fmt: skip
    shown = np.array([relevant[row["en"]] for row in names])
    held = {}
    for code, phrase in PHRASES.items():
        held[f"{code} names"] = relevance(encoder, [row[code] for row in names], shown, pictures, code)
        phrases = [phrase.format(row[code]) for row in names]
        held[f"{code} phrases"] = relevance(encoder, phrases, shown, pictures, code)
    for name, pairs in captions.items():
        some = pairs[:500]
        own = np.array([photo for photo, _ in some])[:, None] == np.arange(len(dev))
        held[f"{name} captions"] = relevance(encoder, [text for _, text in some], own, photos, name.split()[0])
    figures = {name: recalls(encoder, pairs, photos) for name, pairs in captions.items()}
    others = sorted((data / "coco/images").iterdir())[: 1000 - len(labels)]
    places = {label["image"]: place for place, label in enumerate(labels)}
    outside = own_captions(encoder, np.concatenate([pictures, encoded(encoder, others)]), places)
    publish(
        "languages",
        {
            "captions": figures, "english": chosen, "english words": chosen_words, "own captions": outside,
            "relevance": held, "names": precision, "pairs": pairs_of_names(encoder, names, relevant, pictures),
        },
        options,
    )  # fmt: skip


if __name__ == "__main__":
    main()
