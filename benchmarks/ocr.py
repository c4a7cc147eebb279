"""How much of the text in pictures is read and found, and what it costs: ``python benchmarks/ocr.py [--images 24]``.

Needs the extra ``mmsearch[ocr]``. Writes ``benchmarks/results/ocr.json``:

- drawn: a word and a code in a random place, colour and size over a photo (of ``$MMSEARCH_TEST_DATA/photos``, else
  over noise); the share of words and of codes that ``mmsearch`` finds the picture by, first, by that word alone.
- CPU seconds of all threads together: an image read, beside the same image embedded.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from pathlib import Path

import numpy as np
from environment import write_result
from PIL import Image, ImageDraw, ImageFont

from mmsearch.api import Index
from mmsearch.ingest import IngestOptions
from mmsearch.ocr import open_text_reader

_WORDS = """
    bakery museum station library pharmacy harbour festival exit market theatre garden school hospital airport bridge
    castle church hotel laundry butcher florist tailor cinema stadium tunnel
"""
WORDS = _WORDS.split()


def background(number: int) -> Image.Image:
    """A photo, else noise."""
    folder = Path(os.environ.get("MMSEARCH_TEST_DATA", "")) / "photos" / "images"
    photos = sorted(folder.glob("*.jpg"))
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


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=24)
    count = parser.parse_args().images
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
    print(found)
    write_result("ocr", found)


def _first(index: Index, question: str) -> str | None:
    hits = index.search(question, k=1)
    return Path(hits[0].path).name if hits else None


if __name__ == "__main__":
    main()
