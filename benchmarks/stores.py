"""Does a Milvus store answer as an index directory does, and what does the query line cost on top of it?

    python benchmarks/stores.py hits [--images 1000]     40 queries: local against Milvus FLAT and HNSW
    python benchmarks/stores.py overhead [--rows 100000]  time beyond the store's own search, and round trips
    python benchmarks/stores.py kills [--kills 20]        `kill -9` of the server while rows are written
    python benchmarks/stores.py switch [--images 1000]    the model changes under four threads that ask

A real Milvus 2.3.5 server is started for it (`tests.support.milvus_server`); ``--server`` takes the address of
another one, ``--lite`` a file of milvus-lite. Pictures are those of Flickr8k in MMSEARCH_TEST_DATA, encoded once into
an index directory and brought over as Parquet, so both hold the same vectors.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.environment import data_folder, version_of
from common.output import command_line, publish
from common.timing import percentiles

from mmsearch import Index
from mmsearch.core.types import EncoderSpec
from mmsearch.filters import OneOf
from mmsearch.query import Question, SearchOptions
from mmsearch.store.base import NewDocument
from mmsearch.store.milvus.store import MilvusFamily
from tests.support.milvus_server import MilvusServer

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
EXCLUDING = ("a dog -water", "children -swing", "a man -bike -motorcycle", "a beach -people")
WORDS = ("lake", "frisbee", "quarterback", "children 10")
MIXED = 3
IMAGES = 5


def queries(pictures: list[Path]) -> list[tuple[str, Any, SearchOptions]]:
    """Forty: kind, query, options."""
    from PIL import Image

    plain = SearchOptions(k=K)
    asked: list[tuple[str, Any, SearchOptions]] = [("text", text, plain) for text in TEXTS]
    asked += [("filter", text, plain) for text in FILTERED]
    asked += [("excluding", text, plain) for text in EXCLUDING]
    asked += [("words", text, plain) for text in WORDS]
    with_pictures = [Image.open(path).convert("RGB") for path in pictures[: IMAGES + MIXED]]
    asked += [("image", Question(images=(picture,)), plain) for picture in with_pictures[:IMAGES]]
    asked += [("mixed", Question(texts=("in the snow",), images=(one,)), plain) for one in with_pictures[IMAGES:]]
    asked += [("duplicates", text, SearchOptions(k=K, collapse=True)) for text in TEXTS[:2]]
    return asked


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


def recall(mine: list[str], truth: list[str]) -> float:
    """The share of the true ones that are among mine."""
    return len({*mine} & {*truth}) / len(truth) if truth else 1.0


def hits(options: Any) -> dict[str, Any]:
    """Recall of the first ten against the index directory, and answers that are short."""
    pictures = sorted(data_folder("flickr8k", "images").glob("*.jpg"))[: options.images]
    found: dict[str, Any] = {"images": len(pictures)}
    with tempfile.TemporaryDirectory(prefix="mmsearch-local-") as folder, serving(options) as base:
        local = Index.open(Path(folder) / "index", create=True, encoder="builtin")
        (Path(folder) / "photos").mkdir()
        for picture in pictures:
            (Path(folder) / "photos" / picture.name).symlink_to(picture)
        local.add(Path(folder) / "photos")
        local.export_parquet(Path(folder) / "parquet")
        asked = queries(pictures)
        truth = [[hit.path for hit in local.search_many([query], options=how)[0]] for _, query, how in asked]
        for kind in ("flat", "hnsw"):
            with Index.open(address(base, f"hits_{kind}", kind), create=True, encoder=local.encoder()) as stored:
                started = time.perf_counter()
                stored.import_parquet(Path(folder) / "parquet")
                imported = time.perf_counter() - started
                stored._session.refresh_calibration(local.encoder())
                values: dict[str, list[float]] = {}
                short = same = 0
                for (what, query, how), wanted in zip(asked, truth, strict=True):
                    got = [hit.path for hit in stored.search_many([query], options=how)[0]]
                    values.setdefault(what, []).append(recall(got, wanted))
                    short += len(got) < len(wanted)
                    same += got == wanted
                shares = {share: filtered(stored, local, share) for share in (0.5, 0.01, 0.001)}
                found[kind] = {
                    "recall_at_10": round(float(np.mean([one for own in values.values() for one in own])), 4),
                    "by_kind": {name: round(float(np.mean(own)), 4) for name, own in values.items()},
                    "same_order": same, "queries": len(asked), "short": short, "import_s": round(imported, 1),
                    "filters": shares,
                }  # fmt: skip
        local.close()
    return found


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
    """Of plain text queries on random vectors: the time that the server takes, all of it, and round trips."""
    from mmsearch.models.encoders import open_encoder
    from mmsearch.store.milvus.server import Server

    encoder, random = open_encoder("builtin"), np.random.default_rng(1)
    with serving(options) as base:
        place = address(base, "overhead", "hnsw")
        store = MilvusFamily().create(place, "builtin", encoder.spec)
        for start in range(0, options.rows, 2000):
            store.upsert(random_documents(start, 2000), unit(random, 2000, encoder.spec.dim))
        store.close()
        spent = [0.0]
        plain = Server._call

        def counted(self: Server, *arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return plain(self, *arguments, **named)
            finally:
                spent[0] += time.perf_counter() - started

        Server._call = counted  # type: ignore[method-assign]
        with Index.open(place, encoder=encoder) as index:
            index.search(TEXTS[0], k=K)
            beyond, trips, cpu = [], [], []
            for text in TEXTS * 8:
                [vector] = encoder.encode_texts([text])
                spent[0], before, started = 0.0, index._session.store().round_trips, time.perf_counter()  # type: ignore[attr-defined]
                busy = time.process_time()
                index.search(vector=vector, k=K) if options.vectors else index.search(text, k=K)
                beyond.append(time.perf_counter() - started - spent[0])
                cpu.append(time.process_time() - busy)
                trips.append(index._session.store().round_trips - before)  # type: ignore[attr-defined]
        Server._call = plain  # type: ignore[method-assign]
    return {
        "rows": options.rows, "queries": len(beyond), "beyond_ms": percentiles(beyond), "cpu_ms": percentiles(cpu),
        "round_trips": {"most": max(trips), "usual": int(np.median(trips))},
    }  # fmt: skip


def kills(options: Any) -> dict[str, Any]:
    """The server is killed while documents are written; the same call is repeated until all are in."""
    from mmsearch.core.errors import MmsearchError

    spec, random = EncoderSpec("kills", "k" * 64, 64, "none"), np.random.default_rng(2)
    documents, size = options.rows, 100
    vectors = unit(random, documents, spec.dim)
    with tempfile.TemporaryDirectory(prefix="mmsearch-kills-") as folder:
        server = MilvusServer(Path(folder))
        server.start()
        place = f"{server.address}/kills?index=flat"
        MilvusFamily().create(place, "kills", spec).close()
        at = high = killed = failed = lost = doubled = 0
        there: list[str] = []
        while killed < options.kills:
            store = MilvusFamily().open(place)
            timer = threading.Timer(float(random.uniform(0.05, 1.5)), server.kill)
            timer.start()
            try:
                while True:
                    store.upsert(random_documents(at, size), vectors[at : at + size])
                    at = (at + size) % documents
                    high = max(high, at, documents if at == 0 else 0)
            except MmsearchError:
                failed += 1
            timer.join()
            killed += 1
            server.start()
            store.close()
            store = MilvusFamily().open(place)
            store.upsert(random_documents(at, size), vectors[at : at + size])  # the same call again
            high = max(high, at + size)
            at = (at + size) % documents
            there = [one.path for one in store.scan()]
            expected = {one.place for one in random_documents(0, high)}
            lost += len(expected - {*there})
            doubled += len(there) - len({*there})
            store.close()
        server.stop()
    return {"kills": killed, "calls_failed": failed, "lost": lost, "doubled": doubled, "documents": len(there)}


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
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=20)
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
