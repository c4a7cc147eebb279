"""Does a Milvus store answer as an index directory does, and what does the query line cost on top of it?

    python benchmarks/stores.py hits [--images 7000] [--library DIR]   46 queries: local against Milvus FLAT and HNSW
    python benchmarks/stores.py overhead [--rows 100000]  time beyond the store's own search, and round trips
    python benchmarks/stores.py kills [--kills 20]        `kill -9` of the server while a folder is indexed
    python benchmarks/stores.py switch [--images 1000]    the model changes under four threads that ask

A real Milvus 2.3.5 server is started for it (`tests.support.milvus_server`); ``--server`` takes the address of
another one, ``--lite`` a file of milvus-lite. Pictures are those of Flickr8k in MMSEARCH_TEST_DATA, with the videos
there, encoded once into an index directory (which ``--library`` keeps) and brought over as Parquet, so both hold the
same vectors.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.environment import data_folder, version_of
from common.output import command_line, publish
from common.timing import percentiles

from mmsearch import Index
from mmsearch.filters import OneOf
from mmsearch.query import Question, SearchOptions
from mmsearch.store.base import NewDocument
from mmsearch.store.milvus.store import MilvusFamily
from tests.support.milvus_server import MilvusServer, free_port

K = 10
TEXTS = (
    "a dog runs through shallow water", "two children on a swing", "a man climbs a rock wall", "snow covered mountains",
    "a girl in a pink dress", "a football player catches the ball", "a cyclist jumps over a ramp", "people at a market",
    "a surfer rides a wave", "a brown dog catches a frisbee", "a boy splashes in a pool", "a crowd at night",
    "a woman with sunglasses", "a horse jumps over an obstacle",
)  # fmt: skip
FILTERED = (
    "a dog type:image", "a beach path:1*", "children playing size:>0.1mp", "a red car -path:**/2*", "mountains path:3*",
    "a man on a bike size:<0.3mp", "a dog after:2000", "snow before:2100",
)  # fmt: skip
SHARES = {"half": 0.5, "percent": 0.01, "few": 0.001}
"""Folders, and which part of the pictures lies in each; all others are in another one."""
SHARED = ("a dog", "people at the sea")
EXCLUDING = ("a dog -water", "children -swing", "a man -bike -motorcycle", "a beach -people")
WORDS = ("lake", "frisbee", "quarterback", "children 10")
MOMENTS = ("pancakes in a pan", "a rocket in the sky", "a man speaks", "hands with a bowl")
VIDEOS = ("pancake.mkv", "nasa.mp4", "rot_0.mov", "rot_90.mov", "rot_180.mov", "rot_270.mov")
RERANKED = ("two dogs play in the snow", "a boy on a skateboard", "a woman in a red coat")
MIXED = 3
IMAGES = 4


def lay_out(pictures: list[Path], folder: Path) -> None:
    """Links to pictures, by `SHARES`, and to the videos."""
    order = np.random.default_rng(0).permutation(len(pictures))
    bounds = np.cumsum([max(1, round(share * len(pictures))) for share in SHARES.values()])
    for rank, place in enumerate(order.tolist()):
        name = next((name for name, bound in zip(SHARES, bounds, strict=True) if rank < bound), "rest")
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / pictures[place].name).symlink_to(pictures[place])
    (folder / "videos").mkdir()
    for name in VIDEOS:
        (folder / "videos" / name).symlink_to(data_folder("video", name))


def queries(pictures: list[Path]) -> list[tuple[str, Any, SearchOptions]]:
    """Kind, query, options."""
    from PIL import Image

    plain = SearchOptions(k=K)
    asked: list[tuple[str, Any, SearchOptions]] = [("text", text, plain) for text in TEXTS[:8]]
    asked += [("filter", text, plain) for text in FILTERED]
    asked += [
        (f"filter {share:.1%}", f"{text} path:{name}", plain) for name, share in SHARES.items() for text in SHARED
    ]
    asked += [("excluding", text, plain) for text in EXCLUDING]
    asked += [("words", text, plain) for text in WORDS]
    with_pictures = [Image.open(path).convert("RGB") for path in pictures[: IMAGES + MIXED]]
    asked += [("image", Question(images=(picture,)), plain) for picture in with_pictures[:IMAGES]]
    asked += [("mixed", Question(texts=("in the snow",), images=(one,)), plain) for one in with_pictures[IMAGES:]]
    asked += [("duplicates", text, SearchOptions(k=K, collapse=True)) for text in TEXTS[:2]]
    asked += [("moments", f"{text} type:video", plain) for text in MOMENTS]
    asked += [("rerank", text, SearchOptions(k=K, reranker="builtin")) for text in RERANKED]
    return asked


Answer = list[tuple[str, float | None, float | None, float | None]]


def answer(index: Index, query: Any, how: SearchOptions, notes: list[str]) -> Answer:
    """Paths and times of the hits."""
    [found] = index.search_many([query], options=how, note=notes.append)
    return [(hit.path, hit.start_s, hit.end_s, hit.best_s) for hit in found]


def inside(index: Index, folder: Path) -> list[Answer]:
    """Where in two of the videos each of `MOMENTS` is."""
    return [
        [(hit.path, hit.start_s, hit.end_s, hit.best_s) for hit in index.moments(folder / "videos" / name, text)]
        for name in VIDEOS[:2] for text in MOMENTS
    ]  # fmt: skip


@contextmanager
def serving(options: Any) -> Iterator[str]:
    """The beginning of addresses, to which a name is added."""
    with tempfile.TemporaryDirectory(prefix="mmsearch-stores-") as folder:
        if options.lite:
            yield f"milvus:{folder}/"
            return
        if options.server:
            yield options.server.rstrip("/") + "/"
            return
        server = MilvusServer(Path(folder))
        server.start()
        try:
            yield server.address + "/"
        finally:
            server.stop()


def address(base: str, name: str, index: str) -> str:
    """Of a store of that name."""
    return (
        f"{base}{name}.db?index={index}"
        if base.startswith("milvus:/") and "//" not in base
        else f"{base}{name}?index={index}"
    )


def recall(mine: Sequence[Any], truth: Sequence[Any]) -> float:
    """The share of the true ones that are among mine."""
    return len({*mine} & {*truth}) / len(truth) if truth else 1.0


def hits(options: Any) -> dict[str, Any]:
    """Recall of the first ten against the index directory, and answers that are short."""
    pictures = sorted(data_folder("flickr8k", "images").glob("*.jpg"))[: options.images]
    found: dict[str, Any] = {"images": len(pictures), "videos": len(VIDEOS)}
    with tempfile.TemporaryDirectory(prefix="mmsearch-local-") as folder, serving(options) as base:
        library = options.library or Path(folder)
        if not (library / "index").exists():
            lay_out(pictures, library / "photos")
            with Index.open(library / "index", create=True, encoder="builtin") as made:
                made.add(library / "photos")
        local = Index.open(library / "index")
        local.export_parquet(Path(folder) / "parquet")
        asked, notes = queries(pictures), list[str]()
        truth = [answer(local, query, how, notes) for _, query, how in asked]
        moments = inside(local, library / "photos")
        for kind in ("flat", "hnsw"):
            with Index.open(address(base, f"hits_{kind}", kind), create=True, encoder=local.encoder()) as stored:
                started = time.perf_counter()
                stored.import_parquet(Path(folder) / "parquet")
                imported = time.perf_counter() - started
                values: dict[str, list[float]] = {}
                short = same = 0
                different = []
                for (what, query, how), wanted in zip(asked, truth, strict=True):
                    got = answer(stored, query, how, notes)
                    values.setdefault(what, []).append(recall(got, wanted))
                    short += len(got) < len(wanted)
                    same += got == wanted
                    different += (
                        [] if got == wanted else [f"{what}: {query if isinstance(query, str) else 'a picture'}"]
                    )
                same_inside = sum(map(list.__eq__, inside(stored, library / "photos"), moments))
                found[kind] = {
                    "recall_at_10": round(float(np.mean([one for own in values.values() for one in own])), 4),
                    "by_kind": {name: round(float(np.mean(own)), 4) for name, own in values.items()},
                    "same_order": same, "queries": len(asked), "short": short, "different": different,
                    "moments_inside_a_video": {"asked": len(moments), "same": same_inside},
                    "by_cosine_alone": {share: filtered(stored, local, share) for share in SHARES.values()},
                    "import_s": round(imported, 1),
                }  # fmt: skip
        local.close()
    return found | {"notes": sorted({*notes})}


def filtered(stored: Index, local: Index, share: float) -> dict[str, Any]:
    """Recall under a filter that so many documents satisfy, by cosine alone, of text queries; and short answers."""
    mine, truth = stored._session.store(), local._session.store()
    paths = sorted(one.path for one in truth.scan())
    count = max(1, round(share * len(paths)))
    chosen = np.random.default_rng(0).choice(len(paths), count, replace=False)
    vectors = local.encoder().encode_texts(list(TEXTS))
    found, short = [], 0
    allowed = {paths[place] for place in chosen.tolist()}
    wheres = []
    for store in (mine, truth):
        ids = frozenset(one.id for one in store.scan() if one.path in allowed)
        wheres.append(OneOf("document", ids) if store is mine else ids)  # type: ignore[arg-type]
    nearest = mine.search(vectors, K, wheres[0])
    everything = truth.search(vectors, len(paths))
    for near, every in zip(nearest, everything, strict=True):
        own = {one.id: one.path for one in mine.fetch(near.ids.tolist())}
        got = [own[id_] for id_ in near.ids[:K].tolist()]
        theirs = {one.id: one.path for one in truth.fetch(every.ids.tolist())}
        wanted = [path for id_ in every.ids.tolist() if (path := theirs[id_]) in allowed][:K]
        found.append(recall(got, wanted))
        short += len(got) < len(wanted)
    return {"documents": count, "recall_at_10": round(float(np.mean(found)), 4), "short": short}


def random_documents(start: int, count: int) -> list[NewDocument]:
    """Pictures in a hundred folders."""
    return [
        NewDocument(f"{n % 100}/{n}.jpg", "image", n.to_bytes(8, "big"), root="/photos")
        for n in range(start, start + count)
    ]


def unit(random: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """(count, dim) random directions."""
    made = random.standard_normal((count, dim), dtype=np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def overhead(options: Any) -> dict[str, Any]:
    """Of plain text queries on random vectors, calibrated: what they take beyond the requests to the server, by the
    clock and of the processor (the encoder's part among it), and how many requests they make.
    """
    from mmsearch.models.encoders import open_encoder
    from mmsearch.store.milvus.server import Server

    encoder, random = open_encoder("builtin"), np.random.default_rng(1)
    with serving(options) as base:
        place = address(base, "overhead", "hnsw")
        store = MilvusFamily().create(place, "builtin", encoder.spec)
        for start in range(0, options.rows, 2000):
            store.upsert(random_documents(start, 2000), unit(random, 2000, encoder.spec.dim))
        store.close()
        spent, worked = [0.0], [0.0]
        plain = Server._call

        def counted(self: Server, *arguments: Any, **named: Any) -> Any:
            started, busy = time.perf_counter(), time.thread_time()
            try:
                return plain(self, *arguments, **named)
            finally:
                spent[0] += time.perf_counter() - started
                worked[0] += time.thread_time() - busy

        Server._call = counted  # type: ignore[method-assign]
        with Index.open(place, encoder=encoder) as index:
            index._session.refresh_calibration(encoder)
            for text in TEXTS:
                index.search(text, k=K)
            beyond, trips, cpu, encoding, all_of_it = [], [], [], [], []
            for text in TEXTS * 8:
                busy = time.thread_time()
                [vector] = encoder.encode_texts([text])
                encoding.append(time.thread_time() - busy)
                before = index._session.store().round_trips  # type: ignore[attr-defined]
                spent[0], worked[0], started, busy = 0.0, 0.0, time.perf_counter(), time.thread_time()
                index.search(vector=vector, k=K) if options.vectors else index.search(text, k=K)
                cpu.append(time.thread_time() - busy - worked[0])
                all_of_it.append(time.perf_counter() - started)
                beyond.append(all_of_it[-1] - spent[0])
                trips.append(index._session.store().round_trips - before)  # type: ignore[attr-defined]
            covered = index._session.store().calibration()[1]
        Server._call = plain  # type: ignore[method-assign]
    return {
        "rows": options.rows, "calibrated": covered, "queries": len(beyond), "beyond_cpu_ms": percentiles(cpu),
        "of_which_encoding_cpu_ms": percentiles(encoding), "beyond_wall_ms": percentiles(beyond),
        "whole_wall_ms": percentiles(all_of_it), "round_trips": {"most": max(trips), "usual": int(np.median(trips))},
    }  # fmt: skip


def kills(options: Any) -> dict[str, Any]:
    """Files come into a folder, `mmsearch index` takes them into a store, its server is killed meanwhile; then the
    server is started again, and so is the command. Where it was over before the kill, that round does not count. The
    server gets another port each time: it takes one by itself where connections of the killed one linger.
    """
    from collections import Counter

    from tests.support.colours import COLOURS, save_colour

    last = options.results / "stores_kills.json"
    rounds: list[dict[str, Any]] = json.loads(last.read_text())["rounds"] if options.more else []
    random, names = np.random.default_rng(2 + len(rounds)), list(COLOURS)
    with tempfile.TemporaryDirectory(prefix="mmsearch-kills-") as folder:
        photos, server = Path(folder) / "photos", MilvusServer(Path(folder) / "server")
        server.start()
        files, longest, until = 0, 5.0, time.monotonic() + 60 * options.minutes
        while (
            time.monotonic() < until
            and sum(one["killed_in_time"] for one in rounds) < options.kills
            and len(rounds) < 2 * options.kills
        ):
            for number in range(files, files + options.files):
                save_colour(photos / f"{number % 10}" / f"{number}.png", names[number % len(names)], seed=number)
            files += options.files
            process = indexing(photos, f"{server.address}/kills?index=flat")
            delay = float(random.uniform(1.0, longest))
            with suppress(subprocess.TimeoutExpired):
                process.wait(delay)
            in_time = process.poll() is None
            longest = min(max(longest * (1.1 if in_time else 0.9), 2.0), 20.0)
            server.kill()
            killed = time.perf_counter()
            said = process.communicate(timeout=600)[1].strip().splitlines()
            waited = round(time.perf_counter() - killed, 1)
            server.port = free_port()
            try:
                server.start()
            except RuntimeError as error:  # Milvus itself; what was measured counts
                print(error, flush=True)
                break
            place = f"{server.address}/kills?index=flat"
            before = 0
            if MilvusFamily().exists(place):
                store = MilvusFamily().open(place)
                before = store.count()
                store.close()
            again = indexing(photos, place)
            again.communicate(timeout=600)
            store = MilvusFamily().open(place)
            paths = Counter(one.path for one in store.scan())
            expected = {str(path) for path in photos.rglob("*.png")}
            rows = store._count("")
            store.close()
            rounds.append(
                {
                    "killed_in_time": in_time, "after_s": round(delay, 2), "first_code": process.returncode,
                    "first_ended_after_s": waited, "said": said[-1][-300:] if said and in_time else None,
                    "there_after_the_kill": before, "second_code": again.returncode, "files": files,
                    "lost": len(expected - {*paths}), "doubled": sum(count - 1 for count in paths.values()),
                    "rows": rows, "half_written": len(list(store_damage(place))),
                }
            )  # fmt: skip
            print(rounds[-1], flush=True)
        server.stop()
    own = [one for one in rounds if one["killed_in_time"]]
    return {
        "kills": len(own), "files_each": options.files,
        "first_said_so": sum(one["first_code"] != 0 for one in own),
        "second_ended_well": sum(one["second_code"] == 0 for one in own),
        **{name: sum(one[name] for one in rounds) for name in ("lost", "doubled", "half_written")}, "rounds": rounds,
    }  # fmt: skip


def indexing(photos: Path, place: str) -> subprocess.Popen[str]:
    """`mmsearch index` under way."""
    command = [sys.executable, "-m", "mmsearch", "index", str(photos), "--store", place]
    command += ["--model", "tests.support.colours:ColourEncoder", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def store_damage(place: str) -> list[tuple[str, str]]:
    """Documents of a store that are not whole."""
    store = MilvusFamily().open(place)
    try:
        return list(store.damaged())
    finally:
        store.close()


def switch(options: Any) -> dict[str, Any]:
    """The model changes while four threads ask: answers that are of neither model alone, and that fail."""
    from tests.support.colours import ColourEncoder, save_colour

    with tempfile.TemporaryDirectory(prefix="mmsearch-switch-") as folder, serving(options) as base:
        for number in range(options.images):
            save_colour(
                Path(folder) / "p" / f"{number}.png", ["red", "green", "blue", "white"][number % 4], seed=number
            )
        first, second = ColourEncoder("one", 32), _Turned("two", 32)
        index = Index.open(address(base, "switching", "flat"), create=True, encoder=first)
        index.add(Path(folder) / "p")
        before = [hit.path for hit in index.search("red", k=K)]
        answers: list[tuple[str, ...]] = []
        errors: list[str] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                try:
                    answers.append(tuple(hit.path for hit in index.search("red", k=K)))
                except Exception as error:  # what is counted
                    errors.append(repr(error))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        report = index.switch(second)
        time.sleep(2)
        stop.set()
        for thread in threads:
            thread.join()
        after = [hit.path for hit in index.search("red", k=K)]
        index.close()
    mixed = sum(one not in (tuple(before), tuple(after)) for one in answers)
    return {
        "images": options.images, "answers": len(answers),
        "of_the_new_model": sum(one == tuple(after) for one in answers), "mixed": mixed, "failed": len(errors),
        "errors": errors[:3], "switched": report.answers, "differ": before != after,
    }  # fmt: skip


def _Turned(name: str, batch: int) -> Any:  # noqa: N802
    """An encoder for which red is blue, so that its hits are others."""
    from tests.support.colours import ColourEncoder

    class Turned(ColourEncoder):
        def encode_texts(self, texts: Any) -> Any:
            return super().encode_texts([text.replace("red", "blue") for text in texts])

    return Turned(name, batch)


def main() -> None:
    """Runs one of them."""
    parser = command_line(__doc__)
    parser.add_argument("what", choices=("hits", "overhead", "kills", "switch"))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--library", type=Path, help="where photos and their index stay, for another run")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--files", type=int, default=300, help="how many come before each kill")
    parser.add_argument("--more", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--minutes", type=float, default=60.0, help="no kill after so many")
    parser.add_argument("--server")
    parser.add_argument("--lite", action="store_true")
    parser.add_argument("--vectors", action="store_true")
    options = parser.parse_args()
    figures = {"hits": hits, "overhead": overhead, "kills": kills, "switch": switch}[options.what](options)
    where = "milvus-lite" if options.lite else options.server or "Milvus 2.3.5"
    figures |= {"store": where, "pymilvus": version_of("pymilvus"), "load": [round(one, 1) for one in os.getloadavg()]}
    publish(f"stores_{options.what}", figures, options)


if __name__ == "__main__":
    main()
