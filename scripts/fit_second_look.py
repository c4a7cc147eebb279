"""Makes `second_look.npz`, the reranker that ships beside the built-in weights: run it when these, or
`caption_middles.npz`, have changed.

    python scripts/fit_second_look.py FLICKR8K [OUTPUT [SEEN]]

FLICKR8K is a folder with ``images/``, ``captions.tsv``, ``train.txt`` and ``dev.txt``; in the folder SEEN stays what
the encoders gave, which takes a quarter of an hour on two cores and need not be worked out again. The regression is
fitted on the training photos, the four weights and the mix on the dev split: the encoders know the training photos by
heart, so what speaks for a picture there says little. What the weights find on photos that did not choose them is
printed, from fitting on one half of dev and asking the other, both ways, for three ways to halve.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from second_look_fit import fit_second_look, fit_weights, word_shares

from mmsearch.models.encoders.base import EncoderOptions, FloatArray
from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS, BuiltinEncoder
from mmsearch.models.encoders.views import further_views
from mmsearch.models.rerankers.base import standard
from mmsearch.models.rerankers.second_look import FILE, SecondLookModel, hubness, mean_of_looks

DEPTH = 50
LEARNED = 512
"""Dimensions of the learned half, which comes first."""


def captions_of(flickr: Path) -> dict[str, list[str]]:
    """Image name to its captions."""
    captions: dict[str, list[str]] = {}
    with (flickr / "captions.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            captions.setdefault(row["image"], []).append(row["caption"])
    return captions


def looks_at(encoder: BuiltinEncoder, files: list[Path]) -> tuple[FloatArray, FloatArray]:
    """Vectors (n, 3, dim) and logits (n, 3, classes) of pictures: whole, mirrored, middle."""
    vectors, logits = [], []
    for start in range(0, len(files), 4):
        views = []
        for file in files[start : start + 4]:
            image = Image.open(file).convert("RGB")
            views += [encoder.prepare_image(view) for view in (image, *further_views(image))]
        found, classes = encoder.vectors_and_logits(np.stack(views))
        vectors.append(found.reshape(-1, 3, found.shape[1]))
        logits.append(classes.reshape(-1, 3, classes.shape[1]))
    return np.concatenate(vectors), np.concatenate(logits)


def seen(encoder: BuiltinEncoder, flickr: Path, split: str, folder: Path | None) -> dict[str, np.ndarray]:
    """``vectors`` and ``logits`` of a split's pictures, see `looks_at`; ``texts``: rows of their captions."""
    kept = None if folder is None else folder / f"{split}.npz"
    if kept is not None and kept.is_file():
        with np.load(kept, allow_pickle=False) as stored:
            return {name: stored[name].astype(np.float32) for name in stored.files}
    captions, names = captions_of(flickr), (flickr / f"{split}.txt").read_text(encoding="utf-8").split()
    vectors, logits = looks_at(encoder, [flickr / "images" / name for name in names])
    texts = encoder.encode_texts([text for name in names for text in captions[name]])
    found = {"vectors": vectors, "logits": logits, "texts": texts}
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, allow_pickle=False, **found)
    return found


class Questions:
    """Captions of pictures, each with its first candidates by the whole look and what speaks for them."""

    def __init__(self, model: SecondLookModel, texts: list[str], owner: np.ndarray, rows: FloatArray, looks: FloatArray,
                 logits: FloatArray, centroids: FloatArray | None) -> None:  # fmt: skip
        """``rows`` (texts, dim); ``looks`` and ``logits`` (pictures, 3, …), the first one that of the first stage;
        ``centroids``: see `Encoder.caption_centroids`."""
        cosines = rows @ looks[:, 0].T
        self.candidates = np.argsort(-cosines, axis=1, kind="stable")[:, :DEPTH]
        self.first = np.take_along_axis(cosines, self.candidates, 1)
        found = self.candidates == owner[:, None]
        self.right = np.where(found.any(1), found.argmax(1), -1)
        self.owner = owner
        mean = mean_of_looks(looks[:, 1:])
        latents = model.latents(mean, logits[:, 1:].mean(axis=1))
        own = np.stack([
            model.parts(row, model.columns(text), mean[nearest], latents[nearest])
            for text, row, nearest in zip(texts, rows, self.candidates, strict=True)
        ])  # fmt: skip
        hub = np.take_along_axis(hubness(rows, mean, centroids), self.candidates, 1)
        self.parts = np.concatenate([own, hub[..., None]], axis=2)

    def places(self, weights: FloatArray, mix: float, which: np.ndarray) -> np.ndarray:
        """Where the right picture comes after reranking, 0 for the first place, for some questions."""
        ranks = np.full(len(which), len(self.first[0]))
        for place, question in enumerate(which):
            if self.right[question] >= 0:
                scores = standard(self.first[question]) + mix * standard(self.parts[question] @ weights)
                ranks[place] = (scores > scores[self.right[question]]).sum()
        return ranks

    def held_out(self, seed: int) -> np.ndarray:
        """The places with weights from the other half of the pictures."""
        pictures = self.owner.max() + 1
        half = np.random.default_rng(seed).permutation(pictures) < pictures // 2
        ranks = np.zeros(len(self.first), dtype=int)
        for side in (True, False):
            learn, ask = np.flatnonzero(half[self.owner] == side), np.flatnonzero(half[self.owner] != side)
            valid = half[self.candidates[learn]] == side
            weights, mix = fit_weights(self.first[learn], self.parts[learn], self.right[learn], valid)
            ranks[ask] = self.places(weights, mix, ask)
        return ranks


def recall(ranks: np.ndarray) -> str:
    """R@1 / 5 / 10 in percent."""
    return " / ".join(f"{100 * float((ranks < k).mean()):.2f}" for k in (1, 5, 10))


def main(flickr: Path, output: Path, folder: Path | None) -> None:
    """Fits, writes and reports."""
    encoder = BuiltinEncoder(options=EncoderOptions(threads=2))
    captions = captions_of(flickr)
    train, dev = ((flickr / f"{split}.txt").read_text(encoding="utf-8").split() for split in ("train", "dev"))
    known = seen(encoder, flickr, "train", folder)
    vocabulary, shares = word_shares([captions[name] for name in train])
    first = np.cumsum([0, *(len(captions[name]) for name in train[:-1])])
    centroids = np.add.reduceat(known["texts"][:, :LEARNED], first) / np.array([[len(captions[n])] for n in train])
    inputs = np.concatenate([known["vectors"], known["logits"]], axis=2)
    model = fit_second_look(encoder.spec.digest, inputs, vocabulary, shares, centroids)
    model.write(output)
    model = SecondLookModel.read(output)  # as int8 holds it
    new = seen(encoder, flickr, "dev", folder)
    texts = [text for name in dev for text in captions[name]]
    owner = np.repeat(np.arange(len(dev)), [len(captions[name]) for name in dev])
    questions = Questions(model, texts, owner, new["texts"], new["vectors"], new["logits"],
                          encoder.caption_centroids())  # fmt: skip
    weights, mix = fit_weights(questions.first, questions.parts, questions.right)
    replace(model, weights=weights, mix=mix).write(output)
    everything = np.arange(len(texts))
    lines = [
        f"{len(vocabulary)} terms; weights {weights}, mix {mix:.3f}",
        f"before: {recall(questions.places(weights, 0.0, everything))}",
        f"after, same photos: {recall(questions.places(weights, mix, everything))}",
        *(f"after, other photos: {recall(questions.held_out(seed))}" for seed in range(1, 4)),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    places = [Path(argument) for argument in sys.argv[1:]]
    main(places[0], places[1] if len(places) > 1 else SHIPPED_WEIGHTS / FILE, places[2] if len(places) > 2 else None)
