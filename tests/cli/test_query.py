"""`mmsearch query`, `explain` and `eval`: the query language, batches, formats, exit codes."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data as skimage_data

from tests.support.program import Ended
from tests.support.program import run_program as run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("query")
    for number, name in enumerate(("chelsea", "coffee", "rocket", "astronaut")):
        place = folder / "photos" / ("zermatt" if number % 2 else "oslo")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(getattr(skimage_data, name)()).resize((300, 300)).save(place / f"{name}.jpg")
    Image.fromarray(skimage_data.coffee()).resize((300, 300)).save(folder / "photos" / "coffee-again.jpg", quality=70)
    run("index", folder / "photos", home=folder)
    return folder


def names(done: Ended) -> list[str]:
    return [Path(line).stem for line in done.stdout.splitlines()]


def test_filters_and_exact_words(home: Path) -> None:
    assert set(names(run("query", "a cat folder:oslo", "--paths", "--all", home=home))) == {"chelsea", "rocket"}
    assert set(names(run("query", "path:**/zermatt/*", "--paths", home=home))) == {"coffee", "astronaut"}
    assert set(names(run("query", '"zermatt"', "--paths", home=home))) == {"coffee", "astronaut"}
    assert set(names(run("query", "zermatt", "-k", "2", "--paths", home=home))) == {"coffee", "astronaut"}
    assert "rocket" not in names(run("query", "space -rocket", "--paths", "--all", home=home))
    assert "rocket" not in names(run("query", "-rocket", "space", "--paths", "--all", home=home))
    assert "did you mean --json?" in run("query", "space", "-json", home=home, code=2).stderr
    assert "--jsn" in run("query", "space", "--jsn", home=home, code=2).stderr
    done = run("query", "cat befor:2021", home=home, code=2)
    assert 'unknown filter "befor:"' in done.stderr and done.stderr.splitlines()[-1].index("^") == 2 + len("cat ")
    assert run("query", "cat befor:2021", "--raw", "--all", home=home).stdout


def test_several_texts_and_images_are_one_weighted_question(home: Path) -> None:
    photos = home / "photos"
    cat, rocket = photos / "oslo" / "chelsea.jpg", photos / "oslo" / "rocket.jpg"
    ask = ("--paths", "-k", "2", "--no-collapse")
    assert set(names(run("query", "a cat", "a rocket launch", *ask, home=home))) == {"chelsea", "rocket"}
    mostly = ("--text-weight", "1", "--text-weight", "0.05")
    assert names(run("query", "a cat", "a rocket launch", *mostly, *ask, home=home))[0] == "chelsea"
    assert names(run("query", "a rocket launch", "a cat", *mostly, *ask, home=home))[0] == "rocket"
    images = ("--image", cat, "--image", rocket)
    for weights, first in ((("1", "0.2"), "chelsea"), (("0.2", "1"), "rocket")):
        given = [word for weight in weights for word in ("--image-weight", weight)]
        assert names(run("query", *images, *given, *ask, home=home))[0] == first
    wrong = run("query", "a cat", "--text-weight", "1", "--text-weight", "2", home=home, code=2)
    assert "2 weights for 1 texts" in wrong.stderr


def test_nothing_is_exit_code_1_and_says_why(home: Path) -> None:
    assert "nothing found" in run("query", "cat path:none/*", home=home, code=1).stderr
    done = run("query", "a table of taxes", "--min-relevance", "1", home=home, code=1)
    assert done.stdout == "" and "nothing here matches well" in done.stderr
    long = "four bearded men in yellow raincoats repair the roof of a wooden church beside a frozen river at night"
    shown = run("query", long, home=home)  # never a blank page
    assert "nothing in here is like that; the nearest:" in shown.stderr
    assert shown.stdout and all(line.split("\t")[1].startswith("~") for line in shown.stdout.splitlines())
    strict = run("query", long, "--strict", home=home, code=1)
    assert strict.stdout == "" and "nothing here matches well" in strict.stderr
    assert run("query", long, "--strict", "--json", home=home, code=1).stdout == ""


def test_matches_come_before_weaker_ones_and_these_are_few(home: Path) -> None:
    hits = [json.loads(line) for line in run("query", "a cat", "--json", home=home).stdout.splitlines()]
    matches = [hit["match"] for hit in hits]
    assert Path(hits[0]["path"]).stem == "chelsea" and matches == sorted(matches, reverse=True) and matches[0]
    relevance = [hit["relevance"] for hit in hits]
    assert relevance == sorted(relevance, reverse=True) and len(hits) == 4
    lines = run("query", "a cat", home=home).stdout.splitlines()
    assert [line.split("\t")[1].startswith("~") for line in lines] == [not match for match in matches]
    strict = run("query", "a cat", "--strict", "--paths", home=home)
    assert strict.stdout.splitlines() == [hit["path"] for hit in hits if hit["match"]]


@pytest.mark.parametrize("given", ["a cat", "coffee", "zermatt", "type:image", "rocket -cat", "cat after:1990"])
def test_the_three_surfaces_give_the_same(home: Path, given: str) -> None:
    testclient = pytest.importorskip("starlette.testclient")
    from mmsearch import Index, SearchOptions
    from mmsearch.server.app import create_app

    lines = run("query", given, "-k", "4", "--json", home=home).stdout.splitlines()
    printed = [{key: value for key, value in json.loads(line).items() if key != "schema"} for line in lines]
    with Index.open(home / "default") as index:
        python = [hit.as_json() for hit in index.search(given, options=SearchOptions(k=4, collapse=True))]
        bearing = {"Authorization": "Bearer x"}
        client = testclient.TestClient(create_app(index, "x"), "http://127.0.0.1:8642", headers=bearing)
        served = client.get("/api/v1/search", params={"q": given, "k": 4}).json()["hits"]
        known = [hit.pop("document") for hit in served]
        assert [one["path"] for one in known] == [hit["path"] for hit in served]
    assert python == served and printed
    numbers = ("score", "relevance", "parts")
    for one, other in zip(printed, python, strict=True):
        for name in numbers:  # a process that encodes one text has it from another engine
            assert one[name] == (None if other[name] is None else pytest.approx(other[name], abs=2e-4))
        assert {**one, **dict.fromkeys(numbers)} == {**other, **dict.fromkeys(numbers)}
    rows = list(csv.DictReader(io.StringIO(run("query", given, "-k", "4", "--csv", home=home).stdout)))
    assert [row["path"] for row in rows] == [hit["path"] for hit in printed]
    assert [row["match"] for row in rows] == [str(hit["match"]) for hit in printed]
    assert [row["relevance"] for row in rows] == [
        "" if hit["relevance"] is None else str(hit["relevance"]) for hit in printed
    ]


def test_the_old_name_of_a_limit_works_and_says_so(home: Path) -> None:
    done = run("query", "a cat", "--min-score", "0.5", home=home)
    assert "--min-score is called --min-relevance now" in done.stderr
    assert done.stdout == run("query", "a cat", "--min-relevance", "0.5", home=home).stdout
    assert "--min-score" not in run("query", "--help", home=home).stdout


def test_a_list_by_date_shows_dates(home: Path) -> None:
    lines = run("query", "type:image", home=home).stdout.splitlines()
    assert lines and all(re.fullmatch(r"\d{4}-\d\d-\d\d", line.split("\t")[1]) for line in lines)


def test_a_command_by_another_word_is_named(home: Path) -> None:
    assert "did you mean `mmsearch query`?" in run("search", "cat", home=home, code=2).stderr
    assert "Did you mean 'query'?" in run("qurey", "cat", home=home, code=2).stderr


def test_near_duplicates_are_folded_unless_told_otherwise(home: Path) -> None:
    folded = [json.loads(line) for line in run("query", "coffee", "--json", "--all", home=home).stdout.splitlines()]
    shown = names(run("query", "coffee", "--no-collapse", "--all", "--paths", home=home))
    assert {"coffee", "coffee-again"} <= set(shown) and len(shown) == 5
    assert sum(1 + len(hit["duplicates"]) for hit in folded) == 5


def test_every_query_of_a_file_is_there_also_without_results(home: Path, tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text('a cat\n\nzebra after:2900\nrocket, "oslo"\n')
    texts = ["a cat", "zebra after:2900", 'rocket, "oslo"']
    ask = ("query", "--queries", tmp_path / "q.txt", "-k", "1", "--all")
    rows = [json.loads(line) for line in run(*ask, "--json", home=home).stdout.splitlines()]
    assert [(row["query"], row["query_text"]) for row in rows] == list(enumerate(texts, 1))
    assert [row["rank"] for row in rows] == [1, None, 1] and "2900" in rows[1]["reason"] and "path" not in rows[1]
    lines = [line.split("\t") for line in run(*ask, home=home).stdout.splitlines()]
    assert [line[-1] for line in lines] == texts and {len(line) for line in lines} == {5}
    assert lines[1][:3] == ["2", "-", "-"] and "2900" in lines[1][3]
    table = list(csv.DictReader(io.StringIO(run(*ask, "--csv", home=home).stdout)))
    assert [row["query_text"] for row in table] == texts and [bool(row["path"]) for row in table] == [True, False, True]
    assert len(run(*ask, "--paths", home=home).stdout.splitlines()) == 2
    (tmp_path / "q.txt").write_text("zebra after:2900\n")
    assert json.loads(run(*ask, "--json", home=home, code=1).stdout)["query_text"] == "zebra after:2900"


def test_many_questions_at_once(home: Path, tmp_path: Path) -> None:
    questions = ["a cat", "a cup of coffee", "rocket launch"]
    given = "\n".join(questions) + "\n\n"
    lines = run("query", "--queries", "-", "-k", "1", "--json", "--all", home=home, given=given).stdout.splitlines()
    assert [json.loads(line)["query"] for line in lines] == [1, 2, 3]
    alone = [json.loads(run("query", q, "-k", "1", "--json", "--all", home=home).stdout) for q in questions]
    assert [json.loads(line)["path"] for line in lines] == [hit["path"] for hit in alone]
    (tmp_path / "questions.txt").write_text(given)
    rows = run("query", "--queries", tmp_path / "questions.txt", "-k", "1", "--all", home=home).stdout.splitlines()
    assert [row.split("\t")[:2] for row in rows] == [["1", "1"], ["2", "1"], ["3", "1"]]
    assert "give one or the other" in run("query", "cat", "--queries", "-", home=home, code=2, given=given).stderr
    assert "holds no queries" in run("query", "--queries", "-", home=home, code=2, given="\n").stderr


def test_csv_has_a_header_and_quotes(home: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run("query", "a cat", "--csv", "--all", home=home).stdout)))
    assert Path(rows[0]["path"]).stem == "chelsea" and 0 <= float(rows[0]["relevance"]) <= 1
    assert run("query", "a cat", "--csv", "--json", home=home, code=2).stderr.count("exclude each other") == 1


def test_the_parts_are_shown(home: Path) -> None:
    line = run("query", "zermatt", "-k", "1", "--explain", home=home).stdout
    assert "similarity" in line and "words" in line
    terms, total = line.split("\t")[3].strip().split(" = ")
    assert sum(float(term.split()[1]) for term in terms.split(" + ")) == pytest.approx(float(total), abs=0.003)
    photo = home / "photos" / "zermatt" / "coffee.jpg"
    shown = run("explain", "zermatt", photo, "--png", home / "heat.png", home=home).stdout
    assert "words in path: zermatt" in shown and "score" in shown
    assert np.asarray(Image.open(home / "heat.png")).shape == (300, 300, 3)
    found = json.loads(run("explain", "coffee", photo, "--json", home=home).stdout)
    assert found["heat"] is None and found["score"] == pytest.approx(sum(found["parts"].values()))
    assert "is not in the index" in run("explain", "coffee", home / "none.jpg", home=home, code=2).stderr


def test_a_contact_sheet(home: Path, tmp_path: Path) -> None:
    done = run("query", "a cat", "--sheet", tmp_path / "sheet.png", "--paths", "--all", home=home)
    assert "results" in done.stderr and names(done)
    with Image.open(tmp_path / "sheet.png") as drawn:
        assert drawn.width > 500
    assert "there is no result 99" in run("query", "a cat", "--open", "99", home=home, code=2).stderr


def test_reranking_falls_back_and_says_so(home: Path) -> None:
    done = run("query", "a cat", "--rerank", "--rerank-budget", "500ms", "--paths", "--all", home=home)
    assert names(done)
    if "not reranked" in done.stderr:
        assert done.stdout == run("query", "a cat", "--paths", "--all", home=home).stdout
    assert "is no time" in run("query", "a cat", "--rerank", "--rerank-budget", "soon", home=home, code=2).stderr


def test_evaluation_as_a_program(home: Path, tmp_path: Path) -> None:
    captions = tmp_path / "captions.tsv"
    captions.write_text("chelsea.jpg\ta cat\nrocket.jpg\ta rocket launch\nzermatt/coffee.jpg\ta cup of coffee\n")
    shown = run("eval", captions, "--save", tmp_path / "run.json", "--plot", tmp_path / "plot.png", home=home).stdout
    assert "gallery   5 images" in shown and "R@1 text→image" in shown and "share of questions" in shown
    values = json.loads(run("eval", captions, "--json", "--compare", tmp_path / "run.json", home=home).stdout)
    assert values["compared"]["mAP"]["p_value"] == 1.0 and values["questions"] == 3
    assert 0.3 <= values["figures"]["hit@1"]["estimate"] <= 1
    with Image.open(tmp_path / "plot.png") as drawn:
        assert drawn.width > 300
    graded = tmp_path / "graded.tsv"
    graded.write_text("chelsea.jpg\ta cat\t4\t4\nrocket.jpg\ta cat\t1\t1\nrocket.jpg\ta rocket\t4\t3\n")
    assert "Kendall's tau-b" in run("eval", "--judgements", graded, home=home).stdout
    assert "give a file" in run("eval", home=home, code=2).stderr
