"""Relevance never rises down a list, whoever shows it, and pages are parts of one list: over random indexes."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsearch.api import Index
from mmsearch.store.local.optimize import OptimizeOptions
from tests.support.colours import COLOURS, ColourEncoder
from tests.support.program import run_program

WORDS = [*list(COLOURS)[:5], "lake", "dog"]
KINDS = ("image", "image", "image", "video", "text", "speech")
RELAXED = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)

texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
questions = st.one_of(
    texts,
    texts.map(lambda text: f'"{text.split()[0]}" {text}'),
    texts.map(lambda text: f"{text} -{WORDS[1]}"),
    texts.map(lambda text: f"{text} type:image,video,text"),
    st.just("type:image"),
)
options = st.fixed_dictionaries(
    {"k": st.integers(1, 30)},
    optional={
        "modality": st.sampled_from([("image",), ("image", "text"), ("speech", "video"), ("text",)]),
        "strict": st.booleans(),
        "min_relevance": st.floats(0, 1),
        "collapse": st.booleans(),
    },
)
seeds = st.integers(0, 2**32 - 1)


def fill(index: Index, seed: int, count: int) -> None:
    """Documents near words, or far from any, some of them with several segments, some named after a word."""
    random = np.random.default_rng(seed)
    means = index.encoder(texts_only=True).encode_texts(WORDS)
    vectors: list[np.ndarray] = []
    rows: list[dict[str, Any]] = []
    for number in range(count):
        kind = KINDS[random.integers(len(KINDS))] if seed % 3 else "image"
        name = WORDS[random.integers(len(WORDS))] if random.random() < 0.3 else "file"
        for part in range(1 if kind == "image" else int(random.integers(1, 4))):
            noise = random.standard_normal(means.shape[1]) * random.choice([0.02, 0.3, 1.5]) / means.shape[1] ** 0.5
            vectors.append(means[random.integers(len(means))] + noise)
            spoken = " ".join(random.choice(WORDS, 2))
            times = {"start_s": float(part), "end_s": part + 1.0} if kind in ("video", "speech") else {}
            said = {"text": spoken} if kind in ("text", "speech") else {}
            rows.append({"path": f"{name}/{number}", "modality": kind, **times, **said})
    if rows:
        index.add_embeddings(np.asarray(vectors, np.float32), rows, normalize=True)


def assert_falls(relevance: Sequence[float | None], matches: Sequence[bool]) -> None:
    """What is not known says nothing. Weaker matches stand behind."""
    known = [value for value in relevance if value is not None]
    assert known == sorted(known, reverse=True), relevance
    assert list(matches) == sorted(matches, reverse=True), relevance


@RELAXED
@given(seed=seeds, count=st.integers(0, 40), asked=st.lists(questions, min_size=1, max_size=4), chosen=options)
def test_relevance_never_rises_in_python_and_http(
    seed: int, count: int, asked: list[str], chosen: dict[str, Any]
) -> None:
    pytest.importorskip("fastapi")
    from starlette.testclient import TestClient

    from mmsearch.server.app import create_app

    with (
        tempfile.TemporaryDirectory() as place,
        Index.open(Path(place) / "index", create=True, encoder=ColourEncoder()) as index,
    ):
        fill(index, seed, count)
        lists = index.search_many(asked, **chosen)
        for text, hits in zip(asked, lists, strict=True):
            assert_falls([hit.relevance for hit in hits], [hit.match for hit in hits])
            assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
            assert [hit.path for hit in index.search(text, **chosen)] == [hit.path for hit in hits]
        vector = np.random.default_rng(seed).standard_normal(4)
        scores = [hit.score for hit in index.search(vector=vector, k=chosen["k"])]
        assert scores == sorted(scores, reverse=True)

        bearing = {"Authorization": "Bearer secret"}
        client = TestClient(create_app(index, "secret"), base_url="http://127.0.0.1:8642", headers=bearing)
        named = {name: value for name, value in chosen.items() if name != "collapse"}
        if not chosen.get("collapse", True):
            named["no_collapse"] = True
        body = {"queries": [{"q": text} for text in asked], **named}
        answer = client.post("/api/v1/search", json=body)
        assert answer.status_code == 200, answer.text
        for one, text in zip(answer.json()["results"], asked, strict=True):
            assert_falls([hit["relevance"] for hit in one["hits"]], [hit["match"] for hit in one["hits"]])
            assert one["hits"] == client.get("/api/v1/search", params={"q": text, **named}).json()["hits"]


def flags(chosen: dict[str, Any]) -> list[str]:
    """What the command line calls the options."""
    least = chosen.get("min_relevance")
    return [
        "-k", str(chosen["k"]), *(word for kind in chosen.get("modality", ()) for word in ("--modality", kind)),
        *(["--strict"] if chosen.get("strict") else []), *([] if chosen.get("collapse", True) else ["--no-collapse"]),
        *([] if least is None else ["--min-relevance", str(least)]),
    ]  # fmt: skip


@settings(RELAXED, max_examples=8)
@given(seed=seeds, count=st.integers(1, 30), asked=st.lists(questions, min_size=1, max_size=3), chosen=options)
def test_relevance_never_rises_on_the_command_line(
    seed: int, count: int, asked: list[str], chosen: dict[str, Any]
) -> None:
    """As JSON, in lines and as comma-separated values; all show the same list."""
    with tempfile.TemporaryDirectory() as place:
        with Index.open(Path(place) / "index", create=True, encoder="builtin") as index:
            fill(index, seed, count)
        file = Path(place) / "queries.txt"
        file.write_text("\n".join(asked))

        def lines(*form: str) -> list[str]:
            words = ["query", "--index", f"{place}/index", "--queries", str(file), "--all", *flags(chosen), *form]
            return run_program(*words, code=None).stdout.splitlines()

        found = [json.loads(line) for line in lines("--json")]
        told = [line.split("\t") for line in lines()]
        rows = list(csv.DictReader(lines("--csv")))
        assert len(found) == len(told) == len(rows) and {one["query"] for one in found} == {*range(1, len(asked) + 1)}
        for number in range(1, len(asked) + 1):
            hits = [one for one in found if one["query"] == number and one["rank"] is not None]
            assert_falls([hit["relevance"] for hit in hits], [hit["match"] for hit in hits])
            assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1))
            shown = [line for line in told if line[0] == str(number) and line[1] != "-"]
            figures = [line[2] for line in shown]
            if any(hit["relevance"] is not None for hit in hits):
                known = [None if figure in ("-", "~-") else float(figure.removeprefix("~")) for figure in figures]
                assert_falls(known, [not figure.startswith("~") for figure in figures])
                assert [value is None for value in known] == [hit["relevance"] is None for hit in hits]
            own = [row for row in rows if row["query"] == str(number) and row["path"]]
            assert [row["path"] for row in own] == [hit["path"] for hit in hits]
            assert len(shown) == len(hits)


def pages(client: Any, text: str, size: int, most: int, **more: Any) -> list[dict[str, Any]]:
    """The hits of all pages, as a program that follows `next_offset` gets them."""
    hits: list[dict[str, Any]] = []
    offset: int | None = 0
    while offset is not None and offset < most:
        answer = client.get("/api/v1/search", params={"q": text, "k": size, "offset": offset, **more}).json()
        hits += answer["hits"]
        offset = answer["next_offset"]
    return hits


@RELAXED
@given(seed=seeds, count=st.integers(20, 120), text=questions, chosen=options)
def test_a_short_list_is_the_beginning_of_a_long_one(seed: int, count: int, text: str, chosen: dict[str, Any]) -> None:
    """Also where most of the nearest are near-duplicates, which leave their places to others."""
    with (
        tempfile.TemporaryDirectory() as place,
        Index.open(Path(place) / "index", create=True, encoder=ColourEncoder()) as index,
    ):
        fill(index, seed, count)
        short, long = index.search(text, **chosen), index.search(text, **{**chosen, "k": 500})
        assert [hit.path for hit in short] == [hit.path for hit in long][: chosen["k"]]
        assert [hit.relevance for hit in short] == [hit.relevance for hit in long][: chosen["k"]]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["exact", "hnsw", "ivf_flat", "ivf_pq"])
@pytest.mark.parametrize(("seed", "text", "size"), [(4, "lake dog", 23), (9, "dog red", 60)])
def test_pages_are_parts_of_one_list(recipe: str, seed: int, text: str, size: int) -> None:
    """None is repeated or left out, also where a page asks further than what was looked at for the one before it, and
    where the vector search is approximate.
    """
    pytest.importorskip("fastapi")
    from starlette.testclient import TestClient

    from mmsearch.server.app import create_app

    with (
        tempfile.TemporaryDirectory() as place,
        Index.open(Path(place) / "index", create=True, encoder=ColourEncoder()) as index,
    ):
        fill(index, seed, 1100)
        if recipe != "exact":
            index.optimize(OptimizeOptions(recipe=recipe, recall=0.5))
            assert index.status()["recipe"] == recipe
        bearing = {"Authorization": "Bearer secret"}
        client = TestClient(create_app(index, "secret"), base_url="http://127.0.0.1:8642", headers=bearing)
        hits = pages(client, text, size, 450)
        assert_falls([hit["relevance"] for hit in hits], [hit["match"] for hit in hits])
        shown = [(hit["path"], hit["modality"], hit["modality"] == "speech" and hit["segment"]) for hit in hits]
        assert len(set(shown)) == len(shown) > 4 * size
        assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1))
        if recipe == "exact":
            at_once = client.get("/api/v1/search", params={"q": text, "k": 450}).json()["hits"]
            assert [hit["path"] for hit in at_once] == [hit["path"] for hit in hits[:450]]
        elif seed % 3 == 0:  # one segment a document
            every = pages(client, text, 400, 2000, no_collapse=True)
            assert len({hit["path"] for hit in every}) == len(every) == 1100
