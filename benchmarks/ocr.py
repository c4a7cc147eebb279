"""How much of the text in pictures is read and found, and what it costs: ``python benchmarks/ocr.py [--images 24]``.

Needs the extra ``mmsearch[ocr]``. Writes ``benchmarks/results/ocr.json``:

- drawn: a word and a code in a random place, colour and size over a photo (of ``$MMSEARCH_TEST_DATA/photos``, else
  over noise); the share of words and of codes that ``mmsearch`` finds the picture by, first, by that word alone.
- signs: words that stand in the 128 photos themselves, on signs, shops, vehicles, bottles and boxes (written down by
  looking at the photos, not by a reader; only those that a person can read at a glance): the share that finds such a
  photo first, and among the first five, with and without reading.
- CPU seconds of all threads together: an image read, beside the same image embedded.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

import numpy as np
from common.environment import data_folder
from common.output import command_line, publish
from PIL import Image, ImageDraw, ImageFont

from mmsearch.api import Index
from mmsearch.ingest import IngestOptions
from mmsearch.media.ocr import TextReader, open_text_reader

PHOTOS = data_folder("photos", "images", optional=True)
_WORDS = """
    bakery museum station library pharmacy harbour festival exit market theatre garden school hospital airport bridge
    castle church hotel laundry butcher florist tailor cinema stadium tunnel
"""
WORDS = _WORDS.split()

SIGNS = """
    000000000042 rucanor|000000000073 6260|000000000081 airfrance|000000000094 peace way hotel|000000000109 juan
    000000000138 kuhl retsina|000000000142 silk|000000000151 stop|000000000247 navion|000000000250 greenwich vesey
    000000000315 photography|000000000360 nokia|000000000394 skimmer|000000000400 815|000000000415 airline usta
    000000000471 angeles school|000000000540 jal|000000000544 nikon|000000000605 drop coffee
    000000000641 berkeley bart|000000000643 dell
"""


def background(number: int) -> Image.Image:
    """A photo, else noise."""
    photos = sorted(PHOTOS.glob("*.jpg"))
    if photos:
        return Image.open(photos[number % len(photos)]).convert("RGB").resize((640, 480))
    noise = np.random.default_rng(number).integers(0, 255, (12, 16, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC)


def draw(folder: Path, count: int) -> list[tuple[str, str, str]]:
    """Pictures with a sign each; name, word and code of each."""
    chance, made = random.Random(0), []
    for number in range(count):
        word = WORDS[number % len(WORDS)]
        code = f"{chance.choice('ABCEFGHK')}{chance.choice('LMNPRT')}{chance.randint(100, 999)}"
        picture = background(number)
        pen, font = ImageDraw.Draw(picture), ImageFont.load_default(chance.randint(18, 48))
        text = f"{word.upper()}\n{code}"
        box = pen.multiline_textbbox((0, 0), text, font=font)
        left, top = chance.randint(0, int(630 - box[2])), chance.randint(0, int(470 - box[3]))
        shade = tuple(chance.randint(0, 90) for _ in range(3))
        ink = tuple(255 - value for value in shade)
        pen.rectangle((left, top, left + box[2] + 8, top + box[3] + 8), fill=shade)
        pen.multiline_text((left + 4, top + 4), text, fill=ink, font=font)
        picture.save(folder / f"{number:03d}.jpg", quality=85)
        made.append((f"{number:03d}.jpg", word, code))
    return made


def words_on_signs() -> list[tuple[str, str]]:
    """The name of a photo and a word in it, each."""
    photos = [one.split() for line in SIGNS.strip().splitlines() for one in line.split("|")]
    return [(f"{photo}.jpg", word) for photo, *words in photos for word in words]


def signs(index: Index, reader: TextReader) -> dict[str, float | int]:
    """What words in real photos find, before and after their text is read."""
    words = words_on_signs()

    def shares() -> tuple[float, float]:
        found = [[Path(hit.path).name for hit in index.search(word, k=5)] for _, word in words]
        firsts = [name in names[:1] for (name, _), names in zip(words, found, strict=True)]
        return float(np.mean(firsts)), float(np.mean([name in n for (name, _), n in zip(words, found, strict=True)]))

    index.add(PHOTOS)
    before = shares()
    report = index.add(PHOTOS, options=IngestOptions(ocr=reader))
    after = shares()
    return {
        "photos": report.unchanged, "photos read": report.text_read, "words searched": len(words),
        "found first": round(after[0], 3), "among the first five": round(after[1], 3),
        "found first without reading": round(before[0], 3),
        "among the first five without reading": round(before[1], 3),
    }  # fmt: skip


def main() -> None:
    """Runs the benchmark."""
    parser = command_line(__doc__)
    parser.add_argument("--images", type=int, default=24)
    options = parser.parse_args()
    count = options.images
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "signs"
        folder.mkdir()
        made = draw(folder, count)
        reader = open_text_reader()
        with Index.open(Path(temporary) / "index", create=True, encoder="builtin") as index:
            index.encoder()
            started = time.process_time()
            index.add(folder)
            embedded = time.process_time() - started
            before = {word: _first(index, word) for _, word, _ in made}
            reader.read(Image.open(folder / made[0][0]))  # loads
            started = time.process_time()
            report = index.add(folder, options=IngestOptions(ocr=reader))
            spent = time.process_time() - started
            found = {
                "images": count,
                "read": report.text_read,
                "words found first": round(float(np.mean([_first(index, word) == name for name, word, _ in made])), 3),
                "words found first without reading": round(
                    float(np.mean([before[word] == name for name, word, _ in made])), 3
                ),
                "codes found first": round(float(np.mean([_first(index, code) == name for name, _, code in made])), 3),
                "parts of codes found first": round(
                    float(np.mean([_first(index, code[:4]) == name for name, _, code in made])), 3
                ),
                "CPU seconds an image, embedded": round(embedded / count, 3),
                "CPU seconds an image, read": round(spent / count, 3),
                "reader": reader.name,
            }
        if PHOTOS.is_dir():
            with Index.open(Path(temporary) / "photos", create=True, encoder="builtin") as index:
                found["words in photos"] = signs(index, reader)
    publish("ocr", found, options)


def _first(index: Index, question: str) -> str | None:
    hits = index.search(question, k=1)
    return Path(hits[0].path).name if hits else None


if __name__ == "__main__":
    main()
