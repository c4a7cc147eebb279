"""What the multilingual text encoder learns from: texts, and what each of them stands for.

Captions of photos and translated captions come from the folder DATA of `multilingual_train`, names of things from
``multilingual_words.tsv``, ``benchmarks/coco_names.tsv``, the classes of ImageNet and the names of emoji in 13
languages (Unicode CLDR, in the package ``emoji``).
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import emoji

from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS

OF_LANGUAGE = {
    ("zh", "human"): 30_000, ("zh", "google"): 9_000, ("zh", "baidu"): 9_000, ("de", "human"): 16_000,
    ("de", "human-translation"): 5_600, ("fr", ""): 5_600, ("cs", ""): 5_600, ("ar", ""): 18_000, ("en", ""): 5_000,
}  # fmt: skip
"""At most so many captions of photos, by language and source."""
PARALLEL, PARALLEL_ROWS = {"fr": 13_000, "cs": 15_000, "de": 5_000}, 15_000
"""Translated captions without a photo, of so many English ones."""
ENGLISH = 5
"""English captions of a photo whose mean a caption of it stands for: all that there are."""
NAMED = 10.0
"""The weight of names that were translated for it."""
FILES = {"en": "captions", **{code: f"captions_{code}" for code in ("zh", "de", "fr", "cs", "ar")}}
SECOND_HALF = {("zh", "human"): 1.0, ("zh", "google-translation"): 0.55, ("zh", "baidu-translation"): 0.55}
SECOND_SHARE = 0.35
"""What of the texts is learned from in the second stage, by source and of all others: Chinese as Chinese people
describe photos is furthest from what translations teach.
"""
TEMPLATES = {
    "en": "a photo of a {}", "zh": "一张{}的照片", "de": "ein Foto von {}", "fr": "une photo de {}",
    "es": "una foto de {}",
}  # fmt: skip
VARIANT, THINGS = "\ufe0f", range(0x1F300, 0x1FB00)
"""A sign that asks for a coloured picture, and where emoji of things, animals and people lie in Unicode."""


@dataclass(frozen=True)
class Text:
    """A text, the ``english`` texts whose mean it stands for, and the number of the ``photo`` it describes. ``source``:
    its language and who wrote it. ``weight``: of a name, else 0.
    """

    text: str
    english: tuple[str, ...]
    source: tuple[str, str]
    photo: int | None = None
    weight: float = 0.0

    @property
    def is_name(self) -> bool:
        """Whether it names a thing."""
        return self.weight > 0


def rows(path: Path) -> list[dict[str, str]]:
    """A table with tabs."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def names_of_split(data: Path, split: str) -> list[str]:
    """File names of the photos of ``train`` or ``dev``."""
    return (data / f"flickr8k/{split}.txt").read_text(encoding="utf-8").split()


def captions_by_source(data: Path, split: str) -> Iterator[tuple[tuple[str, str], list[tuple[int, str]]]]:
    """By language and source, the captions of a split, each with the number of its photo."""
    place = {name: number for number, name in enumerate(names_of_split(data, split))}
    for code, file in FILES.items():
        found: dict[str, list[tuple[int, str]]] = {}
        for row in rows(data / f"flickr8k/{file}.tsv"):
            if row["image"] in place:
                found.setdefault(row.get("source") or "", []).append((place[row["image"]], row["caption"]))
        for source, captions in found.items():
            yield (code, source), captions


def caption_texts(data: Path) -> list[Text]:
    """Captions of the training photos, and captions without a photo that are translated."""
    draw = random.Random(5)
    parallel = draw.sample(rows(data / "parallel/en_de_fr_cs.tsv"), PARALLEL_ROWS)
    sources = dict(captions_by_source(data, "train"))
    english: dict[int, list[str]] = {}
    for photo, caption in sources["en", ""]:
        english.setdefault(photo, []).append(caption)
    texts = []
    for (code, wanted), count in OF_LANGUAGE.items():
        for (language, source), captions in sources.items():
            if language == code and (source == wanted or source.startswith(f"{wanted}-") or not wanted):
                if wanted == "human" and source != "human":
                    continue
                some = draw.sample(captions, min(count, len(captions)))
                texts += [
                    Text(caption, tuple(english[photo][:ENGLISH]), (language, source), photo) for photo, caption in some
                ]
    for code, count in PARALLEL.items():
        texts += [Text(row[code], (row["en"],), (code, "parallel")) for row in draw.sample(parallel, count)]
    return texts


def second_half(texts: list[Text]) -> list[int]:
    """The numbers of the texts that the second stage learns from."""
    draw = random.Random(7)
    share = lambda text: 1.0 if text.weight == NAMED else SECOND_HALF.get(text.source, SECOND_SHARE)  # noqa: E731
    return [number for number, text in enumerate(texts) if draw.random() < share(text)]


def by_chinese(texts: list[Text]) -> list[int]:
    """The numbers of the texts that the third stage learns from: Chinese captions by people alone."""
    return [number for number, text in enumerate(texts) if text.source == ("zh", "human")]


def name_texts() -> list[Text]:
    """Names of things, alone and in a short phrase."""
    classes = (SHIPPED_WEIGHTS / "classes.tsv").read_text(encoding="utf-8").splitlines()
    pairs: list[tuple[str, str]] = []
    here = Path(__file__).parent
    for table in (here / "multilingual_words.tsv", here.parent / "benchmarks/coco_names.tsv"):
        for row in rows(table):
            for code, name in row.items():
                pairs.append((name, row["en"]))
                if code in ("de", "cs"):
                    pairs.append((name.lower(), row["en"]))
            pairs += [(form.format(row[code]), TEMPLATES["en"].format(row["en"])) for code, form in TEMPLATES.items()]
    further = [(name, name) for line in classes for name in line.split("\t")[0].split(", ")]
    weights = dict.fromkeys([*further, *emoji_names()], 3.0) | dict.fromkeys(pairs, NAMED)
    return [Text(text, (english,), ("", "name"), None, weight) for (text, english), weight in weights.items()]


def emoji_names() -> Iterable[tuple[str, str]]:
    """Names of emoji that show a thing, and their English names."""
    languages = [code for code in emoji.LANGUAGES if code != "en"]
    for code in languages:
        emoji.config.load_language(code)
    for sign, names in emoji.EMOJI_DATA.items():
        bare = sign.replace(VARIANT, "")
        if len(bare) == 1 and ord(bare) in THINGS:
            plain = [names[code].strip(":").replace("_", " ") for code in ("en", *languages) if code in names]
            yield from ((name, plain[0]) for name in plain)
