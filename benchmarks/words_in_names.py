"""How large is the full text of names in scripts with and without spaces, and how long does a word in them take?

    python benchmarks/words_in_names.py [--names 100000] [--captions captions_zh.tsv]

Names are made of Chinese captions that people wrote (``--captions``: a table whose last column they are in; else of
random characters as frequent as Zipf's law says), a third of them with an English folder and a number as cameras give
it. Reported are the bytes of the full text and of all of the catalogue a name, what a schema without it costs to bring
up to date, and the time of words of one to four characters, of numbers and parts of them, and of English words, as the
store finds them and as a query fuses them, in milliseconds of processor time.
"""

from __future__ import annotations

import random
import re
import tempfile
import time
from pathlib import Path

import numpy as np
import sqlite_utils
from common.output import command_line, publish
from common.timing import percentiles, timed

from mmsearch.core.types import EncoderSpec
from mmsearch.query.fuse import find_evidence
from mmsearch.store.base import NewDocument
from mmsearch.store.local import migrations
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.store import LocalStore

FOLDERS = ["holiday at the lake", "birthday party", "mountains", "family", "garden", "work", "screenshots", "beach"]


def sentences(path: Path | None, count: int, chance: random.Random) -> list[str]:
    """Runs of Chinese characters."""
    if path is None:
        letters = [chr(0x4E00 + rank) for rank in range(4000)]
        weights = [1 / (rank + 10) for rank in range(4000)]
        return ["".join(chance.choices(letters, weights, k=chance.randint(4, 16))) for _ in range(count)]
    found = [re.sub(r"[^\u4e00-\u9fff]", "", line.split("\t")[-1]) for line in path.read_text("utf-8").splitlines()[1:]]
    return [chance.choice(found)[:24] or "照片" for _ in range(count)] if len(found) < count else found[:count]


def name_of(number: int, sentence: str, chance: random.Random) -> str:
    """A path of one of three kinds."""
    folder = f"{chance.randint(2005, 2025)}/{chance.choice(FOLDERS)}"
    return [f"{folder}/{sentence}.jpg", f"{folder}/{sentence[:6]}/IMG_{number:06d}.jpg", f"{sentence}-{number}.jpg"][
        number % 3
    ]


def questions(texts: list[str], count: int, chance: random.Random) -> dict[str, list[str]]:
    """Words of each kind."""

    def part(size: int) -> str:
        text = chance.choice([text for text in chance.choices(texts, k=50) if len(text) >= size])
        start = chance.randrange(len(text) - size + 1)
        return text[start : start + size]

    kinds = {f"{size} characters": [part(size) for _ in range(count)] for size in (1, 2, 3, 4)}
    kinds["numbers"] = [f"{chance.randrange(len(texts)):06d}" for _ in range(count)]
    kinds["parts of numbers"] = [f"{chance.randrange(1000, 9999)}" for _ in range(count)]
    kinds["English"] = [chance.choice([*" ".join(FOLDERS).split(), "zeppelin", "birth", "cafes"]) for _ in range(count)]
    return kinds


def size_of(sql: object) -> dict[str, int]:
    """Bytes of the tables of the full text, and of all."""
    rows = sql.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name").fetchall()  # type: ignore[attr-defined]
    sizes = {
        kind: sum(size for name, size in rows if name.startswith(kind)) for kind in ("document_words", "name_parts")
    }
    return {**sizes, "catalogue": sum(size for _, size in rows)}


def main() -> None:
    """Runs the benchmark and writes its result."""
    parser = command_line(__doc__)
    parser.add_argument("--names", type=int, default=100_000)
    parser.add_argument("--captions", type=Path)
    parser.add_argument("--questions", type=int, default=200)
    arguments = parser.parse_args()
    chance = random.Random(0)
    texts = sentences(arguments.captions, arguments.names, chance)
    with tempfile.TemporaryDirectory() as place:
        spec = EncoderSpec("any", "0" * 64, 8, "none")
        IndexDirectory.create(Path(place) / "index", "any", spec)
        store = LocalStore.open(Path(place) / "index")
        for start in range(0, len(texts), 10_000):
            part = [
                NewDocument(name_of(n, texts[n], chance), "image", n.to_bytes(4, "big"), root="/photos")
                for n in range(start, min(start + 10_000, len(texts)))
            ]
            store.upsert(part, np.eye(8, dtype=np.float32)[np.arange(len(part)) % 8])
        asked = questions(texts, arguments.questions, chance)
        every = [word for words in asked.values() for word in words]
        chance.shuffle(every)
        took: dict[str, tuple[float, float]] = {}
        for word in every:
            before = time.thread_time()
            store.words([[word]], 5_000)
            middle = time.thread_time()
            find_evidence(store, [word])
            took[word] = (middle - before, time.thread_time() - middle)
        with store.directory.writing() as writable, writable.catalogue.transaction():
            sizes = size_of(writable.catalogue.sql)
            writable.catalogue.sql.execute("DROP TRIGGER revision_of_changed_document")  # which the step makes
            seconds, _ = timed(lambda: migrations.m013_plain_words(sqlite_utils.Database(writable.catalogue.sql)))
        store.close()
    figures = {
        "names": len(texts),
        "megabytes": {table: round(size / 1e6, 1) for table, size in sizes.items()},
        "schema_step_s": round(seconds, 1),
        "lookup": percentiles(took[word][0] for word in every),
        "evidence": percentiles(took[word][1] for word in every),
        "lookup_by_kind": {kind: percentiles(took[word][0] for word in words) for kind, words in asked.items()},
    }
    publish("words_in_names", figures, arguments)


if __name__ == "__main__":
    main()
