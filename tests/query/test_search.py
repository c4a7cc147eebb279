"""Searching: filters, exclusions, words, batches, moments, near-duplicates; each against a slow and plain oracle."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch.api import Index
from mmsearch.core.errors import UsageError
from mmsearch.query import Question, SearchOptions, encode_questions, exclusion, fuse, retrieve, searcher
from mmsearch.query.calibrate.calibration import load_calibration, refresh_calibration
from mmsearch.query.calibrate.caption_bank import generic_captions
from mmsearch.query.calibrate.fit import CURVE, GENERIC, PRIOR
from mmsearch.query.fuse import content_words, find_evidence
from mmsearch.query.language import QueryError, parse_query
from mmsearch.query.looks import SAME
from mmsearch.query.moments import fold_duplicates, moment_around
from mmsearch.query.options import ALPHA, MATCH
from mmsearch.store.base import Look, Segment
from mmsearch.store.local import searching
from mmsearch.store.local.catalogue.matching import documents_with_words
from mmsearch.store.local.optimize import OptimizeOptions
from mmsearch.store.local.store import LocalStore
from mmsearch.store.local.vectors import Vectors
from tests.support.colours import COLOURS, ColourEncoder, save_colour

DAYS = {"2020": 1_577_880_000, "2021": 1_609_502_400, "2022": 1_641_038_400, "2023": 1_672_574_400}


def stems(hits: list) -> list[str]:
    return [Path(hit.path).stem for hit in hits]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """120 photos, each of two colours, in folders by year and colour, with file times in that year."""
    folder = tmp_path_factory.mktemp("library")
    random = np.random.default_rng(5)
    names = list(COLOURS)
    for number in range(120):
        one, other = (names[i] for i in random.choice(len(names), 2, replace=False))
        year = list(DAYS)[number % 4]
        path = folder / "photos" / year / ("a" if number % 3 else "b") / f"p{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        share = random.uniform(0.1, 0.9)
        pixels = np.empty((24, 32 + number % 5, 3))
        cut = int(share * pixels.shape[1])
        pixels[:, :cut], pixels[:, cut:] = COLOURS[one], COLOURS[other]
        noisy = np.clip(pixels + random.integers(-9, 9, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(path)
        os.utime(path, (DAYS[year] + 60 * number,) * 2)
    with Index.open(folder / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(folder / "photos")
        yield index


class Oracle:
    """All vectors of an index by path, from its files, ranked in plain Python."""

    def __init__(self, index: Index) -> None:
        directory = index._directory
        self.matrix = directory.matrix(directory.space()).astype(np.float32)
        sql = sqlite3.connect(directory.path / "catalogue.sqlite")
        self.rows = sql.execute(
            """SELECT v.row, d.id, d.path, d.mtime_ns FROM vectors v JOIN segments s ON s.id = v.segment_id
               JOIN documents d ON d.content_id = s.content_id ORDER BY d.id"""
        ).fetchall()
        store = LocalStore(directory)
        assert load_calibration(store).covered == len(self.matrix)
        self.hubness = store.columns(np.arange(len(self.matrix))).hubness

    def ranked(self, vector: np.ndarray, allowed: object, alpha: float) -> list[str]:
        scored = [
            (-(float(self.matrix[row] @ vector) - alpha * GENERIC * float(self.hubness[row])), id_, Path(path).stem)
            for row, id_, path, mtime in self.rows if allowed(path, mtime)  # type: ignore[operator]
        ]  # fmt: skip
        return [stem for _, _, stem in sorted(scored)]


def same_order(found: list[str], expected: list[str], scores: list[float]) -> bool:
    """Equal, but that neighbours whose scores differ by rounding may change places."""
    return len(found) == len(expected) and (
        found == expected or (sorted(found) == sorted(expected)) or abs(scores[-1] - scores[0]) < 1e-6
    )


FILTERS = {
    "": lambda path, mtime: True,
    "path:2021/**": lambda path, mtime: path.startswith("2021/"),
    "folder:b": lambda path, mtime: "/b/" in path,
    "folder:b -path:2020/**": lambda path, mtime: "/b/" in path and not path.startswith("2020/"),
    "after:2022": lambda path, mtime: mtime >= 1_640_995_200 * 10**9,
    "before:2021 path:p00*": lambda path, mtime: mtime < 1_609_459_200 * 10**9 and "/p00" in path,
    "path:p017.png": lambda path, mtime: path.endswith("p017.png"),
    "path:nothing/**": lambda path, mtime: False,
}


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("k", [1, 5, 30, 200])
@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_filters_are_exact_at_any_selectivity(library: Index, filters: str, k: int, alpha: float) -> None:
    oracle = Oracle(library)
    for words in ("red", "blue green"):
        vector = ColourEncoder().encode_texts([words])[0]
        expected = oracle.ranked(vector, FILTERS[filters], alpha)[:k]
        hits = library.search(f"{words} {filters}", options=SearchOptions(k=k, hubness=alpha, words=0))
        assert len(hits) == len(expected)
        totals = [sum(hit.parts.values()) for hit in hits]
        assert totals == sorted(totals, reverse=True)
        if stems(hits) != expected:  # equal but for ties by rounding
            at = dict(zip(stems(hits), totals, strict=True))
            assert all(abs(at[a] - at.get(b, at[a])) < 2e-6 for a, b in zip(stems(hits), expected, strict=True))


@pytest.mark.parametrize("filters", FILTERS)
def test_filters_stay_exact_where_sifting_gives_up(
    library: Index, filters: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in (
        (retrieve, "FIRST", 4), (retrieve, "CORRECTED", 4),
        (searching, "SIFTED", 24), (searching, "TRIED", 8), (searching, "SURE", 4),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    for words in ("red", "blue green"):
        vector = ColourEncoder().encode_texts([words])[0]
        expected = Oracle(library).ranked(vector, FILTERS[filters], 0.0)[:3]
        hits = library.search(f"{words} {filters}", options=SearchOptions(k=3, hubness=0.0, words=0))
        assert same_order(stems(hits), expected, [hit.score for hit in hits])


def test_k_hits_come_whenever_k_exist_though_the_nearest_are_all_elsewhere(tmp_path: Path) -> None:
    """600 red photos in one folder are all nearer than the three blue ones in the folder that is asked for."""
    encoder = ColourEncoder()
    for number in range(600):
        save_colour(tmp_path / "photos" / "near" / f"{number}.png", "red", (8, 8), number)
    for number in range(3):
        save_colour(tmp_path / "photos" / "far" / f"blue{number}.png", "blue", (8, 8), number)
    with Index.open(tmp_path / "index", create=True, encoder=encoder) as index:
        index.add(tmp_path / "photos")
        found = index.search("red folder:far", k=3, words=False)
        assert sorted(stems(found)) == ["blue0", "blue1", "blue2"]
        assert len(index.search("red folder:near", k=600, words=False)) == 600


def watch_searches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int | None]]:
    """Fills up with the k of every search of vectors from now on, and how many rows it was restricted to."""
    searches: list[tuple[int, int | None]] = []
    search = Vectors.search

    def watched(self: Vectors, queries: Any, k: int, **options: Any) -> Any:
        searches.append((k, None if options.get("only") is None else len(options["only"])))
        return search(self, queries, k, **options)

    monkeypatch.setattr(Vectors, "search", watched)
    return searches


@pytest.mark.parametrize("listed", [600, 2])
def test_a_vector_index_with_a_narrow_filter_answers_from_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: int
) -> None:
    """Instead of scanning everything; a filter that was only taken for narrow still gets the scan."""
    monkeypatch.setattr(searching, "LISTED", listed)
    for number in range(1000):
        save_colour(tmp_path / "photos" / "near" / f"{number}.png", "red", (8, 8), number)
    for number in range(4):
        save_colour(tmp_path / "photos" / "far" / f"blue{number}.png", "blue", (8, 8), number)
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(tmp_path / "photos")
        report = index.optimize(OptimizeOptions(recipe="hnsw", recall=0.5))
        assert report.recipe == "hnsw"
    searches = watch_searches(monkeypatch)
    with Index.open(tmp_path / "index", encoder=ColourEncoder()) as index:
        found = index.search("red folder:far", k=3, words=False)
    assert sorted(stems(found)) == ["blue0", "blue1", "blue2"]
    everything = [k for k, only in searches if only is None]
    assert (max(everything) < searching.TRIED) == (listed == 600)
    assert searches[-1][1] == (4 if listed == 600 else None)


def test_a_vector_index_with_a_filter_for_a_fifth_answers_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first 40 rows about 8 satisfy it, which is too few, of the 100 that it may be asked for about 20."""
    for number in range(1250):
        folder = "fifth" if number % 5 == 0 else "rest"
        save_colour(tmp_path / "photos" / folder / f"{number}.png", "red", (8, 8), number)
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(tmp_path / "photos")
        index.optimize(OptimizeOptions(recipe="hnsw", recall=0.5))
    searches = watch_searches(monkeypatch)
    with Index.open(tmp_path / "index", encoder=ColourEncoder()) as index:
        found = index.search("red folder:fifth", k=10, words=False, collapse=False)
    assert len(found) == 10 and all(int(stem) % 5 == 0 for stem in stems(found))
    assert searches and all(only is None and k <= 100 for k, only in searches)


def test_a_listing_is_by_date_newest_first(library: Index) -> None:
    encoded = library.encoder().encoded_texts  # type: ignore[attr-defined]
    hits = library.search("folder:b", k=500)
    oracle = Oracle(library)
    expected = sorted(((-mtime, id_, Path(path).stem) for _, id_, path, mtime in oracle.rows if "/b/" in path))
    assert stems(hits) == [stem for _, _, stem in expected]
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    assert library.encoder().encoded_texts == encoded, "a listing needs no encoder"  # type: ignore[attr-defined]
    assert library.search("folder:b", k=7) == hits[:7]


def test_exclusion_leaves_out_what_shows_it_and_still_gives_k(library: Index) -> None:
    oracle = Oracle(library)
    vectors = ColourEncoder().encode_texts(["white", "red"])
    white, red = ((scores - scores.mean()) / scores.std() for scores in (oracle.matrix @ vector for vector in vectors))
    everything = {Path(path).stem for _, _, path, _ in oracle.rows}
    for present, doubtful, strength in ((2.5, 1.0, 0.6), (1.0, 0.2, 2.0), (9.0, 0.0, 1.0), (0.0, 9.0, 1.0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exclusion, "PRESENT", present)
            patch.setattr(exclusion, "DOUBTFUL", doubtful)
            patch.setattr(exclusion, "DEMOTION", strength)
            hits = library.search("white -red", options=SearchOptions(k=200, words=0))
            explained = library.explain("white -red", hits[-1].path, heat_map=False)
        shows = (red >= present) & (red > white)
        assert set(stems(hits)) == everything - {Path(path).stem for row, _, path, _ in oracle.rows if shows[row]}
        assert shows.any() == (present <= 1)
        falls = {Path(path).stem: -strength * max(0.0, red[row] - doubtful) for row, _, path, _ in oracle.rows}
        deviation = float((oracle.matrix @ vectors[0]).std())
        for hit in hits:
            fall = hit.parts.get("excluded", 0.0)
            assert fall == pytest.approx(deviation * falls[Path(hit.path).stem], abs=1e-4)
        totals = [sum(hit.parts.values()) for hit in hits]
        assert totals == sorted(totals, reverse=True)
        assert explained.score == pytest.approx(totals[-1], abs=1e-4)


def test_an_excluded_word_in_the_path_excludes(library: Index) -> None:
    hits = library.search("white -2021", k=200)
    assert hits and not any("/2021/" in hit.path for hit in hits)
    assert all("/2020/" in hit.path for hit in library.search('white "2020"', k=200))
    assert len(library.search('"2020"', k=200)) == 30
    assert library.search('white "no such words"') == []


def test_a_folder_name_is_found_though_the_pictures_do_not_show_it(library: Index) -> None:
    hits = library.search("2022", k=30)
    assert all("/2022/" in hit.path for hit in hits)
    assert all(hit.parts["words"] > 0 and hit.relevance == 1.0 for hit in hits)
    plain = library.search("2022", k=30, words=False)
    assert not all("/2022/" in hit.path for hit in plain)
    both = library.search("red 2022", k=30)
    assert "/2022/" in both[0].path and {"similarity", "hubness", "words"} == set(both[0].parts)


def test_a_word_that_too_many_documents_have_tells_nothing(library: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(library._directory)
    monkeypatch.setattr(fuse, "MOST", 30)  # exactly those of a year
    shares = find_evidence(store, ["2021"]).shares
    assert len(shares) == 30 and set(shares.values()) == {1.0}
    monkeypatch.setattr(fuse, "MOST", 29)
    assert not find_evidence(store, ["2021"]).shares
    catalogue = library._directory.catalogue
    held = documents_with_words(catalogue, '"2021"', 30)
    assert held is not None and held == sorted(held) and documents_with_words(catalogue, '"2021"', 29) is None


def test_captions_and_texts_are_evidence(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    save_colour(tmp_path / "photos" / "one.png", "red")
    save_colour(tmp_path / "photos" / "two.png", "blue")
    (tmp_path / "photos" / "diary.md").write_text("We saw a zeppelin over the harbour.\n\nThen it rained.\n")
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(tmp_path / "photos")
        hits = index.search("zeppelin type:text", k=2)
        assert "zeppelin" in (hits[0].text or "")
        assert stems(index.search('red "zeppelin over the harbour" type:text')) == ["diary"]
        assert stems(index.search("red -zeppelin type:text,image", k=9)) == ["one", "two"]
        index.remove(tmp_path / "photos" / "diary.md")
        assert index.search('"zeppelin" type:text') == []


def test_a_renamed_file_is_found_by_its_new_name_only(tmp_path: Path) -> None:
    for number, colour in enumerate(COLOURS):
        save_colour(tmp_path / "photos" / f"x{number}.png", colour, seed=number)
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(tmp_path / "photos")
        assert index.search('"zermatt"') == []
        (tmp_path / "photos" / "x3.png").rename(tmp_path / "photos" / "zermatt.png")
        index.add(tmp_path / "photos")
        assert stems(index.search('"zermatt"')) == ["zermatt"] and stems(index.search('"x3"')) == []


def test_many_questions_get_the_answers_of_each_one(library: Index) -> None:
    questions = ["red", "blue -red", "green path:2021/**", "folder:b", "white yellow", "red", "2021", '"2020" blue']
    encoder = library.encoder()
    batch = library.search_many(questions, k=7)
    assert batch == [library.search(question, k=7) for question in questions]
    before = encoder.encoded_texts  # type: ignore[attr-defined]
    library.search_many(["red", "red", "blue"])
    assert encoder.encoded_texts - before == 2, "a text is encoded once"  # type: ignore[attr-defined]


def test_more_questions_than_one_part_are_answered_in_parts(library: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searcher, "PART", 5)
    questions: list[str | Question] = [f"{one} and {other}" for one in COLOURS for other in COLOURS]
    questions[3:3] = ["folder:b", "red -blue", *questions[:4]]
    red = Image.new("RGB", (8, 8), COLOURS["red"])
    questions += [Question.of(images=[red]), Question.of(["blue"], [red])]
    encoder = library.encoder()
    before = encoder.encoded_texts  # type: ignore[attr-defined]
    answers = library.search_many(questions, k=7)
    parsed = [parse_query(question) for question in questions if isinstance(question, str)]
    texts = {"blue", *(text for one in parsed for text in (one.text, *one.excluded) if text)}
    assert encoder.encoded_texts - before == len(texts), "each once"  # type: ignore[attr-defined]
    assert answers == [
        library.search(question, k=7) if isinstance(question, str) else library.search_many([question], k=7)[0]
        for question in questions
    ]
    again = library.search_many(["red", "red"])
    assert again[0] == again[1] and again[0] is not again[1], "who changes one answer does not change the other"


def test_an_error_while_a_part_is_encoded_reaches_the_caller(library: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searcher, "PART", 2)
    missing = Question.of(images=[Path("/no/such/picture.png")])
    with pytest.raises(UsageError, match="no file"):
        library.search_many(["red", "blue", "white", missing])


def test_many_questions_share_their_looks_into_the_catalogue(library: Index) -> None:
    asked = [f"{one} and {other}" for one in COLOURS for other in COLOURS]
    library.search_many(asked)  # opens what is opened once
    statements: list[str] = []
    library._directory.catalogue.sql.set_trace_callback(statements.append)
    try:
        library.search_many(asked, k=5)
    finally:
        library._directory.catalogue.sql.set_trace_callback(None)
    assert sum("FROM vectors v JOIN segments" in one for one in statements) <= 2
    assert sum("document_words MATCH" in one for one in statements) <= 2 * len(COLOURS), "counted, then listed"


def test_several_texts_and_images_are_one_question(library: Index) -> None:
    red, blue = (Image.new("RGB", (8, 8), COLOURS[name]) for name in ("red", "blue"))
    oracle = Oracle(library)
    encoder = ColourEncoder()
    vector = 3 * encoder.encode_images([red])[0] + 3 * encoder.encode_images([blue])[0]
    vector /= np.linalg.norm(vector)
    found = library.search(image=[red, blue], image_weight=3.0, k=10)
    assert stems(found) == oracle.ranked(vector, FILTERS[""], 0.0)[:10]
    mixed = library.search(
        "blue", image=red, k=3, text_weight=1000.0, words=False, options=SearchOptions(3, hubness=0, words=0)
    )
    assert stems(mixed) == stems(library.search("blue", options=SearchOptions(3, hubness=0, words=0)))
    assert all(hit.relevance is None for hit in mixed), "nothing is known of sums"
    assert library.search(["red", "blue"], k=3, min_relevance=0.9)
    two = library.search(["red", "blue"], options=SearchOptions(5, hubness=0, words=0))
    vector = encoder.encode_texts(["red"])[0] + encoder.encode_texts(["blue"])[0]
    assert stems(two) == oracle.ranked(vector / np.linalg.norm(vector), FILTERS[""], 0.0)[:5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "  "}, "the query is empty"),
        ({}, "give either a text or an image"),
        ({"text": "red", "text_weight": -1.0}, "positive weights"),
        ({"text": "red", "min_relevance": 1.5}, "between 0 and 1"),
        ({"text": "red", "modality": "smell"}, "no such modality"),
    ],
)
def test_senseless_questions_are_refused(library: Index, arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        library.search(**arguments)


def test_the_language_is_read_unless_raw(library: Index) -> None:
    with pytest.raises(QueryError) as caught:
        library.search("red befor:2021")
    assert caught.value.position == 4
    assert len(library.search("red befor:2021", raw=True, k=3)) == 3


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from(list('red -"\\:*?,blue2021 path:folder:type:imagevideo near')), max_size=30))
def test_any_text_gives_hits_or_a_query_error(library: Index, text: str) -> None:
    try:
        parse_query(text)
    except QueryError as error:
        with pytest.raises(QueryError) as caught:
            library.search(text)
        assert caught.value.position == error.position
        return
    if text.strip():
        assert len(library.search(text, k=3)) <= 3


def test_relevance_is_read_beside_what_generic_captions_score(library: Index) -> None:
    oracle = Oracle(library)
    bank = ColourEncoder().encode_texts(generic_captions()).astype(np.float16).astype(np.float32)
    to_bank = oracle.matrix @ bank.T
    hubness = np.sort(to_bank, axis=1)[:, -8:].mean(axis=1)
    np.testing.assert_allclose(oracle.hubness, hubness, atol=1e-5)
    count, weight = len(hubness), ALPHA * GENERIC
    generic = to_bank - weight * hubness[:, None]
    own = oracle.matrix @ ColourEncoder().encode_texts(["red"])[0] - weight * hubness
    share = count / (count + PRIOR)
    mean = (1 - share) * generic.mean() + share * own.mean()
    deviation = math.sqrt((1 - share) * generic.var() + share * own.var())
    asked = library.search("red", k=40, words=False)
    for hit in asked:
        z = (hit.score - mean) / deviation
        assert hit.relevance == pytest.approx(1 / (1 + math.exp(-CURVE.constant - CURVE.score * z)), abs=0.005)
        assert hit.match == (hit.relevance >= MATCH)
    few = library.search("red", k=40, min_relevance=0.2, words=False)
    assert all(hit.relevance >= 0.2 for hit in few) and len(few) == sum(hit.relevance >= 0.2 for hit in asked)
    strict = library.search("red", k=40, strict=True, words=False)
    assert strict == [hit for hit in asked if hit.match] and 0 < len(strict) < len(asked)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([*COLOURS, "-red", "-grey", "landscape", "a", "photo", "of", "zebra", "type:text"]),
             min_size=1, max_size=5),
    st.booleans(), st.booleans(), st.floats(0, 20), st.sampled_from([None, ("image", "text"), ("text",)]),
)  # fmt: skip
def test_relevance_never_rises_down_a_list(
    library: Index, words: list[str], collapse: bool, with_image: bool, bonus: float, kinds: tuple[str, ...] | None
) -> None:
    image = Image.new("RGB", (8, 8), COLOURS["red"]) if with_image else None
    for text in (" ".join(words), None):
        if text is None and image is None:
            continue
        hits = library.search(
            text, image=image, options=SearchOptions(k=30, collapse=collapse, words=bonus, modalities=kinds)
        )
        known = [hit.relevance for hit in hits if hit.relevance is not None]
        assert known == sorted(known, reverse=True)
        matches = [hit.match for hit in hits]
        assert matches == sorted(matches, reverse=True), "weaker ones stand behind"


def test_the_calibration_grows_with_the_index_and_survives_damage(tmp_path: Path) -> None:
    encoder = ColourEncoder()
    for number in range(30):
        save_colour(tmp_path / "photos" / f"{number}.png", list(COLOURS)[number % 8], seed=number)
    with Index.open(tmp_path / "index", create=True, encoder=encoder) as index:
        index.add(tmp_path / "photos")
        for number in range(30, 50):
            save_colour(tmp_path / "photos" / f"{number}.png", list(COLOURS)[number % 8], seed=number)
        index.add(tmp_path / "photos")
        directory = index._directory
        store = LocalStore(directory)
        grown, measured = load_calibration(store), store.columns(np.arange(50))
        place = next(directory.path.glob("background-*.npz"))
        place.write_bytes(place.read_bytes()[:500])
        assert load_calibration(LocalStore(directory)).covered == 0
        index.add(tmp_path / "photos")  # nothing new: what is damaged, or of another version, is made anew all the same
        assert load_calibration(LocalStore(directory)).covered == 50
        place.write_bytes(place.read_bytes()[:500])
        assert index.search("red")
        store = LocalStore(directory)
        whole = refresh_calibration(store, encoder)
        again = store.columns(np.arange(50))
        np.testing.assert_allclose(measured.hubness, again.hubness, atol=1e-6)
        np.testing.assert_allclose(
            [grown.pooled.count, grown.pooled.total, grown.pooled.squares],
            [whole.pooled.count, whole.pooled.total, whole.pooled.squares],
        )
        assert grown.pooled.count == 50 * len(generic_captions()) and not len(grown.passages)


def test_near_duplicates_fold_into_the_best_of_them(tmp_path: Path) -> None:
    photo = save_colour(tmp_path / "photos" / "red.png", "red", (40, 30))
    Image.open(photo).save(tmp_path / "photos" / "again.jpg", quality=60)
    save_colour(tmp_path / "photos" / "wide.png", "red", (60, 30), seed=3)
    save_colour(tmp_path / "photos" / "blue.png", "blue")
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(tmp_path / "photos")
        assert len(index.search("red", k=10)) == 4
        folded = index.search("red", k=10, collapse=True, words=False)
        assert len(folded) == 3
        [leader] = [hit for hit in folded if hit.duplicates]
        assert {Path(leader.path).name, Path(leader.duplicates[0]).name} == {"red.png", "again.jpg"}
        assert [hit.rank for hit in folded] == [1, 2, 3]


def test_pictures_of_other_shapes_or_times_are_no_duplicates() -> None:
    vectors = np.tile(np.float32([1, 0]), (5, 1))
    looks = [Look(40, 30, "2021-01-01T12:00:00"), Look(80, 60, "2021-01-01T12:00:02"), Look(30, 40, None),
             Look(40, 30, "2021-01-01T13:00:00"), None]  # fmt: skip
    assert fold_duplicates(vectors, looks) == [[0, 1], [2], [3], [4]]
    apart = np.float32([[1, 0], [SAME - 0.01, np.sqrt(1 - (SAME - 0.01) ** 2)]])
    assert fold_duplicates(apart, [Look(1, 1, None)] * 2) == [[0], [1]]


def test_frames_that_match_side_by_side_are_one_moment() -> None:
    frames = [Segment(i, 1, "/r/clip.mp4", "video", i, 2.0 * i, 2.0 * i + 2.0) for i in range(8)]
    scores = np.float32([0.1, 0.1, 0.5, 0.6, 0.55, 0.1, 0.6, 0.1])
    moment = moment_around(frames, scores, 3)
    assert moment == (4.0, 10.0, 6.0)
    assert moment_around([frames[0]._replace(start_s=None)], scores[:1], 0) is None


def test_words_that_tell_nothing_are_left_out() -> None:
    assert content_words(["a photo of the Lake of Zürich, IMG 7"]) == ("lake", "zurich", "7")


def test_questions_are_plain_values() -> None:
    question = Question.of(["lake -people type:text after:2021"])
    assert question.texts == ("lake",) and question.excluded == ("people",) and question.modalities == ("text",)
    assert Question.of(["-people"]).texts == ()
    assert json.dumps(SearchOptions().k) == "10"


def test_a_video_as_a_question_counts_all_over(tmp_path: Path) -> None:
    import av

    (tmp_path / "photos").mkdir()
    clip = tmp_path / "photos" / "clip.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(60):
            colour = COLOURS["red" if number < 30 else "blue"]
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 64), colour))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    encoder = ColourEncoder()
    [asked] = encode_questions(encoder, [Question.of([], [clip])])
    expected = encoder.encode_images([Image.new("RGB", (8, 8), COLOURS[name]) for name in ("red", "blue")]).sum(axis=0)
    assert float(asked.vector() @ expected / np.linalg.norm(expected)) > 0.97
    save_colour(tmp_path / "photos" / "violet.png", "violet")
    with Index.open(tmp_path / "index", create=True, encoder=encoder) as index:
        index.add(tmp_path / "photos")
        [hit] = index.search("blue type:video", k=1)
        assert hit.start_s is not None and hit.best_s is not None and hit.end_s is not None
        assert 2.0 < hit.best_s < 6.1 and hit.start_s <= hit.best_s <= hit.end_s
        assert {one.modality for one in index.search(image=clip, k=2)} == {"video", "image"}
