"""What spoken moments cost and find: pictures beside 2,000 transcript passages, spoken sentences, speed, noise, memory.

    python benchmarks/sound.py pictures DATA     R@1 of pictures on Flickr8k dev without and with passages
    python benchmarks/sound.py sentences MODEL   60 sentences in 10 minutes of video, by their words and by paraphrases:
                                                 those that the fusion was chosen on, and those that it was not
    python benchmarks/sound.py noise MODEL       10 minutes each of silence, noise and a tune: passages and CPU time
    python benchmarks/sound.py kills MODEL       ``kill -9`` twenty times while recordings are listened to
    python benchmarks/sound.py memory MODEL      peak memory for 2 minutes and for 2 hours

``MODEL`` is a speech model that `mmsearch.models.speech.open_recogniser` opens; ``DATA`` holds flickr8k/ and parallel/.
The paraphrases were written before anything was measured (`common.spoken_pairs`).
"""

from __future__ import annotations

import contextlib
import csv
import json
import pydoc_data.topics
import random
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common.output import command_line, publish
from common.spoken_pairs import CHOOSING, REPORTING

from mmsearch.api import Index

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.sound import RATE, noise, save_sound, save_video, silence, spoken, srt, tune

FIGURES: list[dict[str, Any]] = []
QUERIES = 1000
PASSAGES = 2000


def pictures(folder: str) -> None:
    """R@1 of pictures for the first caption of each, by the default options."""
    data = Path(folder)
    names = (data / "flickr8k" / "dev.txt").read_text().split()[:QUERIES]
    captions: dict[str, str] = {}
    with (data / "flickr8k" / "captions.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            captions.setdefault(row[0], row[1])
    wanted = [name for name in names if name in captions]
    rows = (data / "parallel" / "en_de_fr_cs.tsv").read_text(encoding="utf-8").splitlines()[1:]
    texts = {"captions of other photos": [row.split("\t")[0] for row in rows], "prose": list(_prose())}
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        for name in wanted:
            (photos / name).symlink_to((data / "flickr8k" / "images" / name).resolve())
        with Index.open(Path(folder) / "index", create=True, encoder="builtin") as index:
            index.add(photos)
            questions = [captions[name] for name in wanted]
            before = _found(index, questions, wanted)
            tell({"passages": 0, "R@1": before.mean().round(4)})
            for kind, sentences in texts.items():
                talk = Path(folder) / kind / "talk.wav"
                talk.parent.mkdir()
                save_sound(talk, 1.0)
                talk.with_suffix(".srt").write_text(
                    srt([(5.0 * n, 5.0 * n + 3.0, text) for n, text in enumerate(sentences[:PASSAGES])]),
                    encoding="utf-8",
                )
                index.add(talk.parent)
                after = _found(index, questions, wanted)
                tell({
                    "passages": index.status()["speech"]["passages"], "of": kind, "R@1": after.mean().round(4),
                    "lost": int((before & ~after).sum()), "won": int((after & ~before).sum()),
                    "speech first": _SPEECH_FIRST[-1],
                })  # fmt: skip
                index.remove(talk.parent)


_SPEECH_FIRST: list[int] = []


def _found(index: Index, questions: list[str], wanted: list[str]) -> np.ndarray:
    hits = index.search_many(questions, k=1, raw=True)
    _SPEECH_FIRST.append(sum(bool(one) and one[0].modality == "speech" for one in hits))
    return np.array([bool(one) and Path(one[0].path).name == name for one, name in zip(hits, wanted, strict=True)])


def _prose() -> Iterator[str]:
    """Sentences of Python's own documentation."""
    for text in pydoc_data.topics.topics.values():
        for sentence in re.split(r"(?<=[.!?])\s+", " ".join(text.split())):
            if 30 < len(sentence) < 160 and sentence.count(" ") > 5 and sentence[0].isupper():
                yield sentence


def sentences(model: str) -> None:
    """The first result within a second of where a sentence begins, in ten videos of six sentences."""
    for name, pairs in (("choosing", CHOOSING), ("reporting", REPORTING)):
        with tempfile.TemporaryDirectory() as folder:
            _sentences(Path(folder), name, pairs, model)


def _sentences(folder: Path, name: str, pairs: list[tuple[str, str]], model: str) -> None:
    films, begins = folder / "films", {}
    films.mkdir()
    colours = ("red", "green", "blue", "yellow", "black", "white", "orange", "violet")
    for number in range(10):
        sound, path = silence(0.0), films / f"film{number}.mp4"
        for place in range(6 * number, 6 * number + 6):
            sound = np.concatenate([sound, silence(10.0 * (place % 6) + 2.0 - len(sound) / RATE)])
            begins[pairs[place][0]] = (str(path), len(sound) / RATE)
            sound = np.concatenate([sound, spoken(pairs[place][0])])
        sound = np.concatenate([sound, silence(max(0.0, 60.0 - len(sound) / RATE))])
        save_video(path, [colours[(number + n) % 8] for n in range(4)], 15.0, sound=sound)
    with Index.open(folder / "index", create=True, encoder="builtin") as index:
        from mmsearch.ingest import IngestOptions

        wall, cpu = time.perf_counter(), time.process_time()
        index.add(films)
        embedded = time.perf_counter() - wall, time.process_time() - cpu
        wall, cpu = time.perf_counter(), time.process_time()
        report = index.add(films, options=IngestOptions(speech=model))
        heard = time.perf_counter() - wall, time.process_time() - cpu
        tell({
            "sentences": name, "recognised": report.recognised, "minutes": 10,
            "passages": index.status()["speech"]["passages"],
            "embedding s": _rounded(embedded), "listening s (wall, CPU)": _rounded(heard),
            "times real time on 2 cores, by CPU": round(600 / (heard[1] / 2), 1),
        })  # fmt: skip
        for kind, place in (("words", 0), ("paraphrase", 1)):
            for options, chosen in (({}, "all"), ({"modality": "speech"}, "speech alone")):
                right = []
                for pair in pairs:
                    hit = next(iter(index.search(pair[place], k=1, raw=True, **options)), None)
                    path, start = begins[pair[0]]
                    right.append(hit is not None and hit.path == path and abs((hit.start_s or 0) - start) <= 1.0)
                figures = {"first within 1 s": round(float(np.mean(right)), 3), "of": len(right)}
                tell({"sentences": name, "by": kind, "among": chosen, **figures})


def tell(figures: dict[str, Any]) -> None:
    """Prints figures as soon as they are known, and keeps them for the result."""
    print(json.dumps(figures), flush=True)
    FIGURES.append(figures)


def _rounded(values: tuple[float, ...]) -> list[float]:
    return [round(value, 1) for value in values]


def quiet(model: str) -> None:
    """Passages found where nobody speaks, and what listening to it costs."""
    from mmsearch.models.speech import open_recogniser

    recogniser = open_recogniser(model)
    chord = sum(
        tune(600, hertz) * (0.5 + 0.5 * np.sign(np.sin(np.arange(600 * RATE) / RATE * 3))) for hertz in (262, 330)
    )
    for name, samples in (("silence", silence(600)), ("noise", noise(600)), ("tune", chord.astype(np.float32))):
        cpu, cues = time.process_time(), []
        for part in recogniser.voiced(samples[n : n + 10 * RATE] for n in range(0, len(samples), 10 * RATE)):
            cues += recogniser.recognise(part.samples).cues
        spent = time.process_time() - cpu
        tell({"10 minutes of": name, "passages": len(cues), "CPU, % of real time": round(spent / 6, 2)})


KILLS = 20
Transcripts = dict[str, list[tuple[float, float, str]]]
"""Passages by the name of the recording."""


def kills(model: str, count: str = str(KILLS)) -> None:
    """Every life of the command commits a recording at least, and ends at a random moment of the next one. What it
    leaves is compared with what was there before and with what an undisturbed run gives.
    """
    chance, wanted = random.Random(0), int(count)
    with tempfile.TemporaryDirectory() as folder:
        talks, place = Path(folder) / "talks", Path(folder) / "index"
        talks.mkdir()
        for number, (sentence, _) in enumerate(REPORTING[: wanted + 2 + wanted // 2]):
            save_sound(talks / f"talk{number:02}.flac", spoken(sentence))
        _listen(talks, Path(folder) / "undisturbed", model).communicate()
        expected, _ = _left(Path(folder) / "undisturbed", talks)
        began = time.perf_counter()
        lost = doubled = half = damages = killed = 0
        before: Transcripts = {}
        while killed < wanted:
            process, known = _listen(talks, place, model), len(before)
            while process.poll() is None and _heard(place) <= known:
                time.sleep(0.02)
            time.sleep(chance.uniform(0.0, 1.0))
            process.kill()
            process.communicate()
            killed += process.returncode == -signal.SIGKILL
            after, kinds = _left(place, talks)
            lost += sum(after.get(name) != passages for name, passages in before.items())
            doubled += sum(len(set(passages)) < len(passages) for passages in after.values())
            half += sum(passages != expected[name] for name, passages in after.items())
            damages += len(set(kinds) - {"uncommitted bytes", "new file"})
            print(f"kill {killed}: {len(after)} of {len(expected)} recordings", flush=True)
            before = after
            if process.returncode == 0:
                break
        _listen(talks, place, model).communicate()
        after, kinds = _left(place, talks)
        tell({
            "kills": killed, "recordings": len(expected), "lost": lost, "doubled": doubled, "half": half,
            "damages that verify found": damages, "in the end as undisturbed": after == expected,
            "verify in the end": sorted(kinds), "s": round(time.perf_counter() - began, 1),
        })  # fmt: skip


def _listen(talks: Path, place: Path, model: str) -> subprocess.Popen[bytes]:
    command = ["index", str(talks), "--index", str(place), "--model", "builtin", "--speech", "--speech-model", model]
    return subprocess.Popen([sys.executable, "-m", "mmsearch", *command], stdout=subprocess.DEVNULL)


def _heard(place: Path) -> int:
    """How many recordings are committed as heard, as another process sees it."""
    file = place / "catalogue.sqlite"
    if not file.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as sql:
        try:
            return int(sql.execute("SELECT count(*) FROM heard WHERE recogniser IS NOT NULL").fetchone()[0])
        except sqlite3.OperationalError:  # its tables are being made
            return 0


def _left(place: Path, talks: Path) -> tuple[Transcripts, list[str]]:
    """The transcripts of an index, of what has one, and the kinds of what `verify` finds."""
    if not (place / "manifest.json").exists():
        return {}, []
    with Index.open(place) as index:
        found = {path.name: index.transcript(path) for path in sorted(talks.iterdir())}
        kinds = [one.kind for one in index.verify().differences]
    return {name: [cue[:3] for cue in cues] for name, cues in found.items() if cues}, kinds


def memory(model: str) -> None:
    """Peak memory of a process that indexes one recording with ``--speech``; speech that repeats every two minutes."""
    with tempfile.TemporaryDirectory() as folder:
        part = np.concatenate([spoken(CHOOSING[0][0]), silence(117.0)])
        peaks = {}
        for minutes in (2, 120):
            path = Path(folder) / f"{minutes}" / "talk.flac"
            path.parent.mkdir()
            save_sound(path, np.tile(part, minutes // 2))
            done = subprocess.run(
                [sys.executable, __file__, "one", model, str(path)], check=True, capture_output=True, text=True
            )
            peaks[minutes] = int(done.stdout.split()[-1])
        tell({"peak MB by minutes": peaks, "ratio": round(peaks[120] / peaks[2], 3)})


def one(model: str, path: str) -> None:
    """Indexes one recording and prints the peak memory in MB."""
    from mmsearch.ingest import IngestOptions

    with tempfile.TemporaryDirectory() as folder, Index.open(folder + "/x", create=True, encoder="builtin") as index:
        index.add(path, options=IngestOptions(speech=model))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000)


def main() -> None:
    """Runs one part and writes ``results/sound_PART.json``."""
    parser = command_line(__doc__)
    parts = {"pictures": pictures, "sentences": sentences, "noise": quiet, "kills": kills, "memory": memory, "one": one}
    parser.add_argument("part", choices=parts)
    parser.add_argument("arguments", nargs="+")
    options = parser.parse_args()
    parts[options.part](*options.arguments)
    if FIGURES:
        publish(f"sound_{options.part}", {"figures": FIGURES}, options)


if __name__ == "__main__":
    main()
