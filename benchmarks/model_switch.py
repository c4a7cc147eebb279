"""A change of the model under load: ``python benchmarks/model_switch.py [--texts 100000] [--photos 2000]``.

An index is made with one model. Then, while readers ask it without pause, it is switched to another one; the switch is
killed (``kill -9``) and started again, and new documents are added while it runs. Every answer is compared with brute
force over the vectors of each model, with as many of the new documents as were committed: its scores must be those of
one model, for every hit and for the list as a whole. An answer of neither is mixed; an exception is a failed query.

``texts``: that many imported documents of one passage each and two encoders of hashed words, which cost next to
nothing, so that the switch itself is what is measured; the readers are threads of the process that switches, the runs
that are killed are processes of their own. ``photos``: real photos (of ``$MMSEARCH_TEST_DATA/flickr8k``, else of
scikit-image with pixel noise), the built-in encoder and a small open_clip model with random weights, all through the
command line; the readers are processes of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from common.environment import data_folder
from common.models import save_model
from common.output import command_line, publish
from common.photos import write_jpegs
from PIL import Image

from mmsearch import Index, SearchOptions, SwitchOptions, open_encoder
from mmsearch.core.types import EncoderSpec, Modality
from mmsearch.models.encoders import Encoder

K = 10
TOLERANCE = 2e-3
"""Half precision, and the noise of another batch size."""


def by_cosine(modality: Modality) -> SearchOptions:
    """Ranked by cosine alone, so that brute force says what is right."""
    return SearchOptions(k=K, hubness=0.0, words=0.0, modalities=(modality,))


PAUSE_S = 0.02
WORDS = ("dog", "lake", "snow", "child", "bicycle", "street", "beach", "red shirt", "rock", "football")
QUERIES = [f"a {one} and a {other}" for one in WORDS for other in WORDS if one != other][:40]


class WordEncoder(Encoder):
    """Texts as sums of random directions, one for each word. Another seed makes another space."""

    input_size, max_text_tokens, batch_size = 8, 64, 512

    def __init__(self, seed: int) -> None:
        self.spec = EncoderSpec(f"words-{seed}", sha256(str(seed).encode()).hexdigest(), 256, "none")
        self._words = np.random.default_rng(seed).standard_normal((4096, 256), dtype=np.float32)

    def prepare_image(self, image: Image.Image) -> np.ndarray:
        """There are no pictures here."""
        return np.zeros(1)

    def encode_prepared(self, inputs: np.ndarray) -> np.ndarray:
        """There are no pictures here."""
        raise NotImplementedError("there are no pictures here")

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """See `Encoder.encode_texts`."""
        words = [[crc32(word.encode()) % 4096 for word in f"{text} .".split()] for text in texts]
        rows = [self._words[each].sum(axis=0) for each in words]
        sums = np.array(rows, dtype=np.float32).reshape(-1, 256)
        return sums / np.linalg.norm(sums, axis=1, keepdims=True)

    def count_tokens(self, text: str) -> int:
        """See `Encoder.count_tokens`."""
        return len(text.split()) + 2


def passages(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows to import: documents of one passage each, no two alike."""
    random = np.random.default_rng(start)
    nouns = random.integers(0, 900, (count, 9))
    return [
        {
            "path": f"doc:{start + n}", "modality": "text",
            "text": f"{WORDS[n % len(WORDS)]} {WORDS[n * 7 % 11 % len(WORDS)]} w{start + n} "
            + " ".join(f"n{noun}" for noun in row),
        }
        for n, row in enumerate(nouns.tolist())
    ]  # fmt: skip


def copy_photos(folder: Path, count: int, start: int) -> None:
    """Real photos, or generated ones."""
    source = data_folder("flickr8k", "images", optional=True)
    found = sorted(source.rglob("*.jpg"))[start : start + count]
    if len(found) < count:
        write_jpegs(folder, count, (320, 240), start)
        return
    folder.mkdir(parents=True)
    for path in found:
        shutil.copy(path, folder / path.name)


# Readers


def read(index: Index, output: Path, stop: Path, modality: Modality) -> None:
    """Asks until ``stop`` is there; a line of JSON for each answer or failure."""
    options = by_cosine(modality)
    with output.open("w") as lines:
        number = 0
        while not stop.exists():
            query = number % len(QUERIES)
            started = time.perf_counter()
            try:
                hits = index.search(QUERIES[query], options=options)
                said: dict[str, Any] = {"hits": [[hit.path, hit.score] for hit in hits]}
            except Exception as error:  # whatever it is, it is a failed query
                said = {"error": f"{type(error).__name__}: {error}"}
            said |= {"query": query, "ms": 1000 * (time.perf_counter() - started)}
            lines.write(json.dumps(said) + "\n")
            lines.flush()
            number += 1
            time.sleep(PAUSE_S)


def start_readers(place: Path, work: Path, count: int) -> list[subprocess.Popen[bytes]]:
    """Processes that ask; returns when each has had an answer."""
    readers = [
        subprocess.Popen([sys.executable, __file__, "--read", str(place), str(work / f"{n}.jsonl"), str(work / "stop")])
        for n in range(count)
    ]
    while not all((work / f"{n}.jsonl").exists() and (work / f"{n}.jsonl").stat().st_size for n in range(count)):
        time.sleep(0.1)
        if any(reader.poll() is not None for reader in readers):
            raise SystemExit("a reader ended before it began")
    return readers


# The truth


@dataclass
class Truth:
    """What one model says: cosines (queries, documents by row), and which documents were there from the start."""

    paths: list[str]
    cosines: np.ndarray
    is_old: np.ndarray
    places: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.places = {path: place for place, path in enumerate(self.paths)}

    def agrees(self, query: int, hits: list[tuple[str, float]]) -> bool:
        """Whether every hit has its document's cosine, and the list is the best ten of what was there at some moment.

        New files are committed batch by batch, so all old documents are there and the first so many of the new ones.
        """
        if len(hits) != K or any(path not in self.places for path, _ in hits):
            return False
        scores = np.array([score for _, score in hits])
        places = [self.places[path] for path, _ in hits]
        if np.abs(self.cosines[query, places] - scores).max() > TOLERANCE or len(set(places)) < K:
            return False
        new = np.flatnonzero(~self.is_old)
        for count in (0, len(new), *range(1, len(new))):
            there = self.is_old.copy()
            there[new[:count]] = True
            best = np.sort(self.cosines[query][there])[::-1][:K]
            if np.abs(best - scores).max() <= TOLERANCE:
                return True
        return False


def truth(index: Index, encoder: Encoder, is_old: Callable[[str], bool]) -> Truth:
    """Brute force over the vectors that the index holds of one encoder."""
    directory = index._directory
    space = directory.space_of(encoder.spec)
    assert space is not None
    matrix = np.asarray(directory.matrix(space), dtype=np.float32)
    found = directory.catalogue.find_rows(space.id, range(space.row_count))
    paths = [directory.path_of(segment) for segment in found]
    cosines = encoder.encode_texts(QUERIES) @ matrix[[segment.row for segment in found]].T
    return Truth(paths, cosines, np.array([is_old(path) for path in paths]))


def wrong_vectors(index: Index, encoder: Encoder, truth_: Truth, count: int = 300) -> int:
    """Of some documents, how many do not have the vector that their file has when it is encoded by itself."""
    directory = index._directory
    space = directory.space_of(encoder.spec)
    assert space is not None
    chosen = set(np.random.default_rng(0).choice(truth_.paths, min(count, len(truth_.paths)), replace=False).tolist())
    matrix, wrong = directory.matrix(space), 0
    for segment in directory.catalogue.find_rows(space.id, range(space.row_count)):
        path = directory.path_of(segment)
        if path in chosen:
            with Image.open(path) as image:
                expected = encoder.encode_images([image.convert("RGB")])[0]
            wrong += float(matrix[segment.row].astype(np.float32) @ expected) < 0.99
    return wrong


# The run


def command(*arguments: str) -> list[str]:
    """A command line of mmsearch."""
    return [sys.executable, "-m", "mmsearch", *arguments]


def run(*arguments: str) -> dict[str, Any]:
    """Runs a command that prints one line of JSON; fails when it fails."""
    done = subprocess.run(command(*arguments, "--json"), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"mmsearch {' '.join(arguments)} ended with exit code {done.returncode}: {done.stdout[-1000:]}"
        )
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def covered(place: Path, model: str) -> int:
    """How many documents a model covers now."""
    models = run("status", "--index", str(place))["models"]
    return next((int(one["covered"]) for one in models if one["model"] == model), 0)


def switch_with_kills(
    place: Path, model: str, documents: int, kills: int, more: Path
) -> tuple[dict[str, Any], list[int]]:
    """The switch, killed at even shares of its way, and new files indexed before the last run; the last run's report.

    Also returns how many documents were covered at each kill.
    """
    at_kills: list[int] = []
    for number in range(kills):
        process = subprocess.Popen(command("switch", model, "--index", str(place), "--json"), stdout=subprocess.DEVNULL)
        while process.poll() is None and covered(place, model) < documents * (number + 1) / (kills + 2):
            time.sleep(0.2)
        process.kill()
        process.wait()
        at_kills.append(covered(place, model))
    with subprocess.Popen(
        command("switch", model, "--index", str(place), "--json"), stdout=subprocess.PIPE, text=True
    ) as last:
        while last.poll() is None and covered(place, model) <= (at_kills[-1] if at_kills else 0):
            time.sleep(0.2)
        indexed = run("index", str(more), "--index", str(place))  # beside the running switch
        output, _ = last.communicate()
    if last.returncode:
        raise SystemExit(f"the switch ended with exit code {last.returncode}: {output}")
    return json.loads(output) | {"indexed_meanwhile": indexed["indexed"]}, at_kills


def answers_of(work: Path, readers: int) -> Iterator[list[dict[str, Any]]]:
    """What each reader wrote."""
    for number in range(readers):
        yield [json.loads(line) for line in (work / f"{number}.jsonl").read_text().splitlines()]


def judge(work: Path, readers: int, first: Truth, second: Truth) -> dict[str, Any]:
    """Counts answers by who gave them."""
    figures: dict[str, Any] = {"queries": 0, "failed": 0, "mixed": 0, "by_first": 0, "by_second": 0, "back_again": 0}
    errors: list[str] = []
    took: dict[str, list[float]] = {"first": [], "second": []}
    for said in answers_of(work, readers):
        has_switched = False
        for answer in said:
            figures["queries"] += 1
            if "error" in answer:
                figures["failed"] += 1
                errors.append(answer["error"])
                continue
            hits = [(path, float(score)) for path, score in answer["hits"]]
            by_first, by_second = first.agrees(answer["query"], hits), second.agrees(answer["query"], hits)
            figures["mixed"] += not by_first and not by_second
            figures["by_first"] += by_first
            figures["by_second"] += by_second
            figures["back_again"] += has_switched and by_first and not by_second
            has_switched = has_switched or (by_second and not by_first)
            took["second" if has_switched else "first"].append(answer["ms"])
    for name, values in took.items():
        shown = {f"p{share}": round(float(np.percentile(values, share)), 2) for share in (50, 95, 99)} if values else {}
        figures[f"{name}_ms"] = shown | ({"max": round(max(values), 1)} if values else {})
    return figures | {"errors": errors[:5]}


def with_photos(work: Path, count: int, more_count: int, readers: int, kills: int) -> dict[str, Any]:
    """The built-in encoder to a small open_clip model, through the command line; readers are processes."""
    old, more, place = work / "old", work / "more", work / "index"
    copy_photos(old, count, 0)
    copy_photos(more, more_count, count)
    model = save_model(work / "model", seed=2)
    indexed = run("index", str(old), "--index", str(place), "--model", "builtin")
    print(f"indexed {indexed['indexed']} in {indexed['seconds']['total']:.0f} s", flush=True)
    processes = start_readers(place, work, readers)
    started = time.perf_counter()
    report, at_kills = switch_with_kills(place, model, indexed["indexed"], kills, more)
    seconds = time.perf_counter() - started
    time.sleep(10)  # so that every reader has opened the new model
    (work / "stop").touch()
    for process in processes:
        process.wait()
    with Index.open(place) as index:
        encoders = open_encoder("builtin"), open_encoder(model)
        first, second = (truth(index, encoder, lambda path: path.startswith(f"{old}/")) for encoder in encoders)
        wrong = wrong_vectors(index, encoders[1], second)
        return report | {
            "covered_at_kills": at_kills,
            "switch_s": round(seconds, 1),
            **judge(work, readers, first, second),
            "wrong_vectors_of_300": wrong,
            "differences_that_verify_found": len(index.verify().differences),
        }


FILL = """
import sys
from pathlib import Path
from mmsearch import Index, SwitchOptions
from model_switch import WordEncoder
with Index.open(Path(sys.argv[1]), encoder=WordEncoder(1)) as index:
    index.switch(WordEncoder(2), options=SwitchOptions(activate=False))
"""


def with_texts(work: Path, count: int, more_count: int, readers: int, kills: int) -> dict[str, Any]:
    """Imported passages and two encoders of hashed words; readers are threads of the process that switches."""
    place = work / "index"
    first_encoder, second_encoder = WordEncoder(1), WordEncoder(2)
    rows = passages(count)
    with Index.open(place, create=True, encoder=first_encoder) as index:
        index.add_embeddings(first_encoder.encode_texts([row["text"] for row in rows]), rows)
        threads = [
            threading.Thread(target=read, args=(index, work / f"{n}.jsonl", work / "stop", "text"))
            for n in range(readers)
        ]
        for thread in threads:
            thread.start()
        started, at_kills = time.perf_counter(), []
        for number in range(kills):
            process = subprocess.Popen([sys.executable, "-c", FILL, str(place)])
            while process.poll() is None and covered_here(index, "words-2") < count * (number + 1) / (kills + 2):
                time.sleep(0.05)
            process.kill()
            process.wait()
            at_kills.append(covered_here(index, "words-2"))
        more, added = passages(more_count, start=count), []

        def progress(at: Any) -> None:
            if not added:  # beside the running switch
                vectors = first_encoder.encode_texts([row["text"] for row in more])
                added.append(index.add_embeddings(vectors, more).indexed)

        report = index.switch(second_encoder, options=SwitchOptions(), progress=progress)
        seconds = time.perf_counter() - started
        time.sleep(2)
        (work / "stop").touch()
        for thread in threads:
            thread.join()

        def is_old(path: str) -> bool:
            return int(path.split(":")[1]) < count

        first, second = truth(index, first_encoder, is_old), truth(index, second_encoder, is_old)
        texts = {row["path"]: row["text"] for row in (*rows, *more)}
        found = np.array([second_encoder.encode_texts([texts[path]])[0] for path in second.paths[::300]])
        matrix = index._directory.matrix(index._directory.space())
        segments = index._directory.catalogue.find_rows(index._directory.space().id, range(len(matrix)))
        stored = np.array([matrix[segment.row] for segment in segments[::300]], dtype=np.float32)
        return {
            "documents": report.coverage.documents,
            "covered": report.coverage.covered,
            "coverage": report.coverage.share,
            "answers": report.answers,
            "indexed_meanwhile": sum(added),
            "covered_at_kills": at_kills,
            "switch_s": round(seconds, 1),
            **judge(work, readers, first, second),
            "wrong_vectors_of_300": int((np.einsum("ij,ij->i", found, stored) < 0.99).sum()),
            "differences_that_verify_found": len(index.verify().differences),
        }


def covered_here(index: Index, model: str) -> int:
    """How many documents a model covers now."""
    return next((int(one["covered"]) for one in index.status()["models"] if one["model"] == model), 0)


def main() -> int:
    """Measures, prints, writes the result; exit code 1 when a query failed, was mixed, or something is not covered."""
    parser = command_line(__doc__)
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--photos", type=int, default=2_000)
    parser.add_argument("--more", type=int, default=200, help="documents that are added while the switch runs")
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--read", nargs=3, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        with Index.open(arguments.read[0]) as index:
            read(index, *arguments.read[1:], modality="image")
        return 0

    passed = True
    for name, count, measure in (("texts", arguments.texts, with_texts), ("photos", arguments.photos, with_photos)):
        if not count:
            continue
        work = Path(tempfile.mkdtemp(prefix="mmsearch-switch-"))
        os.environ["MMSEARCH_CACHE"] = str(work / "cache")
        try:
            found = measure(work, count, arguments.more, arguments.readers, arguments.kills)
        finally:
            shutil.rmtree(work)
        flaws = ("failed", "mixed", "back_again", "wrong_vectors_of_300", "differences_that_verify_found")
        whole = found["covered"] == count + arguments.more == found["documents"] and found["indexed_meanwhile"]
        good = bool(found["answers"] and whole and found["by_first"] and found["by_second"])
        good = good and not any(found[flaw] for flaw in flaws)
        shown = ("documents", "covered", "coverage", "indexed_meanwhile", "covered_at_kills", "switch_s", "queries",
                 "by_first", "by_second", *flaws, "errors", "first_ms", "second_ms")  # fmt: skip
        figures = {"passed": good, **{key: found[key] for key in shown}}
        options = {"readers": arguments.readers, "kills": arguments.kills, "more": arguments.more}
        publish(f"model_switch_{name}", {"options": options, **figures}, arguments)
        passed = passed and good
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
