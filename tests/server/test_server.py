"""The server against what Python answers, and against those who may not ask."""

from __future__ import annotations

import io
import re
import signal
import socket
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch.api import Index
from mmsearch.core.errors import UsageError
from mmsearch.core.extras import install_hint
from mmsearch.query import SearchOptions, searcher
from mmsearch.server import searching
from mmsearch.server.app import create_app
from mmsearch.server.run import serve
from mmsearch.server.static import PAGE
from tests.media.video.test_reader import write_clip
from tests.support.colours import COLOURS, ColourEncoder, save_colour
from tests.support.program import run_program
from tests.support.sound import save_sound, save_video, silence, spoken, srt
from tests.support.whisper_model import whisper_base

pytest.importorskip("fastapi")
from starlette.testclient import TestClient

HOST = "http://127.0.0.1:8642"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "files"
    for number, name in enumerate(COLOURS):
        save_colour(folder / f"{name}.png", name, (40, 30), seed=number)
    (folder / "about.txt").write_text("Everything is <b>red</b> here.")
    (folder.parent / "secret.png").write_bytes((folder / "red.png").read_bytes())
    data = io.BytesIO()
    Image.new("RGB", (20, 20), "blue").save(data, "PNG")
    with tarfile.open(folder / "more.tar", "w") as archive:
        member = tarfile.TarInfo("000.png")
        member.size = len(data.getvalue())
        archive.addfile(member, io.BytesIO(data.getvalue()))
    return folder


@pytest.fixture(scope="module")
def index(files: Path) -> Iterator[Index]:
    with Index.open(files.parent / "index", create=True, encoder=ColourEncoder()) as opened:
        assert opened.add(files).indexed == len(COLOURS) + 2
        yield opened


@pytest.fixture
def client(index: Index) -> TestClient:
    return TestClient(create_app(index, "secret"), base_url=HOST, headers={"Authorization": "Bearer secret"})


def get(client: TestClient, address: str, **values: Any) -> Any:
    answer = client.get(address, params=values)
    assert answer.status_code == 200, answer.text
    return answer.json()


def plain(answer: Any) -> list[Any]:
    """Hits as other surfaces print them, without what is known of their files."""
    return [{name: value for name, value in hit.items() if name != "document"} for hit in answer["hits"]]


@pytest.mark.parametrize(
    "address", ["/", "/page.js", "/api/v1/search?q=red", "/api/v1/status", "/api/v1/file?path=x", "/none"]
)
def test_nothing_is_answered_without_the_token(index: Index, address: str) -> None:
    client = TestClient(create_app(index, "secret"), base_url=HOST, follow_redirects=False)
    assert client.get(address).status_code == 401
    for headers in (
        {"Authorization": "Bearer secre"},
        {"Authorization": "Basic secret"},
        {"Cookie": "mmsearch_token=x"},
    ):
        assert client.get(address, headers=headers).status_code == 401
    assert client.get(f"/page.js?token={'wrong'}").status_code == 401
    for host in ("example.org", "example.org:8642", "127.0.0.1.example.org", "localhost.example.org:80"):
        headers = {"Authorization": "Bearer secret", "Host": host}
        assert client.get(address, headers=headers).status_code == 403


def test_the_printed_address_lets_a_browser_in(index: Index) -> None:
    client = TestClient(create_app(index, "secret"), base_url=HOST)
    page = client.get("/?token=secret")
    assert page.status_code == 200 and page.url.path == "/" and "token" not in str(page.url)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert client.get("/none").headers["content-security-policy"] == page.headers["content-security-policy"]
    assert client.get("/api/v1/status").json()["documents"]["image"] == len(COLOURS) + 1
    cookie = client.get("/?token=secret", follow_redirects=False).headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie


def test_the_page_asks_for_nothing_that_is_not_there(client: TestClient) -> None:
    page, script = (PAGE / "page.html").read_text(), (PAGE / "page.js").read_text()
    ids = set(re.findall(r'id="([\w-]+)"', page))
    assert set(re.findall(r'\$\("([\w-]+)"\)', script)) <= ids
    for address in re.findall(r'(?:href|src)="(/[\w./]+)"', page):
        assert client.get(address).status_code == 200, address
    for address in set(re.findall(r'"(/api/v1/\w+)"', script)):
        assert client.get(address).status_code in (200, 400, 405), address


def test_it_answers_as_python_does(client: TestClient, index: Index) -> None:
    for asked in ({"q": "red"}, {"q": "blue -red", "k": 3}, {"q": ["red", "blue"]}, {"q": "red", "modality": "text"}):
        found = get(client, "/api/v1/search", no_collapse=1, **asked)
        kinds = (asked["modality"],) if "modality" in asked else None
        options = SearchOptions(k=asked.get("k", 10), modalities=kinds)
        hits = index.search(asked["q"], options=options)
        assert plain(found) == [hit.as_json() for hit in hits] and hits and found["schema"] == 3
        assert [hit["document"] for hit in found["hits"]] == [hit.document.as_json() for hit in hits if hit.document]
    least = get(client, "/api/v1/search", q="red", min_relevance=0.2)["hits"]
    assert least and all(hit["relevance"] >= 0.2 for hit in least)


def test_pictures_are_questions_too(client: TestClient, index: Index, files: Path) -> None:
    data = (files / "green.png").read_bytes()
    sent = client.post("/api/v1/search", content=data, params={"no_collapse": 1, "k": 4}).json()
    assert plain(sent) == [hit.as_json() for hit in index.search(image=files / "green.png", k=4)]
    like = get(client, "/api/v1/search", like=str(files / "green.png"), k=4)["hits"]
    assert [hit["path"] for hit in like] == [hit["path"] for hit in sent["hits"][1:]]
    mixed = client.post("/api/v1/search", content=data, params={"q": "red"}).json()["hits"]
    assert {Path(hit["path"]).stem for hit in mixed[:2]} <= {"red", "green", "yellow", "black"}


def test_weaker_matches_are_told_apart(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    found = get(client, "/api/v1/search", q="red")
    assert {hit["match"] for hit in found["hits"]} == {True, False} and not found["nothing_matches_well"]
    strict = get(client, "/api/v1/search", q="red", strict=1)["hits"]
    assert strict == [hit for hit in found["hits"] if hit["match"]]
    monkeypatch.setattr(searcher, "MATCH", 1.1)
    found = get(client, "/api/v1/search", q="grey thing")
    assert found["hits"] and found["nothing_matches_well"] and not any(hit["match"] for hit in found["hits"])
    found = get(client, "/api/v1/search", q="grey thing", strict=1)
    assert found["hits"] == [] and found["nothing_matches_well"]


def test_wrong_questions_are_refused_with_the_reason(
    client: TestClient, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "UPLOAD_BYTES", 5000)
    for values, says in (
        ({"q": "red befor:2020"}, "did you mean before:"),
        ({}, "give either a text or an image"),
        ({"q": "red", "k": "many"}, "k is 'many'"),
        ({"q": "red", "k": "0"}, "from 1 to 500"),
        ({"q": "red", "modality": "smell"}, "no such modality: smell"),
        ({"like": str(files.parent / "secret.png")}, "not in the index"),
    ):
        answer = client.get("/api/v1/search", params=values)
        assert answer.status_code == 400 and says in answer.json()["detail"], answer.text
    assert client.get("/api/v1/search", params={"q": "red befor:2020"}).json()["position"] == 4
    for data, says in ((b"no picture", "cannot be read"), (b"x" * 6000, "larger than")):
        answer = client.post("/api/v1/search", content=data)
        assert answer.status_code == 400 and says in answer.json()["detail"]


def test_pictures_of_the_index_and_of_nothing_else(client: TestClient, files: Path) -> None:
    answer = client.get("/api/v1/thumbnail", params={"path": str(files / "red.png"), "size": 30})
    assert answer.headers["content-type"] == "image/jpeg" and "private" in answer.headers["cache-control"]
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.format == "JPEG" and max(picture.size) <= 160
    save_colour(files / "red.png", "blue", (40, 30))
    changed = client.get("/api/v1/thumbnail", params={"path": str(files / "red.png"), "size": 30})
    assert changed.content != answer.content, "a picture of the file as it was"
    save_colour(files / "red.png", "red", (40, 30), seed=0)
    assert client.get("/api/v1/thumbnail", params={"path": str(files / "about.txt")}).status_code == 404
    for path in ("/etc/passwd", str(files / ".." / "secret.png"), str(files), "", "red.png", str(files / "gone.png")):
        for address in ("/api/v1/thumbnail", "/api/v1/file"):
            answer = client.get(address, params={"path": path})
            assert answer.status_code == 400 and "not in the index" in answer.json()["detail"], path


def test_where_a_picture_matches_is_drawn_over_it(client: TestClient, index: Index, files: Path) -> None:
    half = Image.new("RGB", (400, 200), "white")
    half.paste((220, 30, 30), (200, 0, 400, 200))
    half.save(files / "half.png")
    index.add(files)
    answer = client.get("/api/v1/heat", params={"path": str(files / "half.png"), "q": "red"})
    drawn = Image.open(io.BytesIO(answer.content)).convert("RGB")
    assert answer.headers["content-type"] == "image/jpeg" and drawn.size[0] == 2 * drawn.size[1]
    tint = np.asarray(drawn).astype(int)[..., 0] - np.asarray(drawn)[..., 2]  # the picture under the map is grey
    assert tint[:, drawn.width // 2 :].mean() > tint[:, : drawn.width // 2].mean() + 50
    for path, q, status in (("half.png", "", 400), ("half.png", "after:2020", 400), ("about.txt", "red", 404)):
        assert client.get("/api/v1/heat", params={"path": str(files / path), "q": q}).status_code == status
    (files / "half.png").unlink()
    index.add(files)


def test_files_whole_and_in_parts(client: TestClient, files: Path) -> None:
    data = (files / "blue.png").read_bytes()
    whole = client.get("/api/v1/file", params={"path": str(files / "blue.png")})
    assert (whole.content, whole.headers["content-type"]) == (data, "image/png")
    part = client.get("/api/v1/file", params={"path": str(files / "blue.png")}, headers={"Range": "bytes=3-9"})
    assert (part.status_code, part.content) == (206, data[3:10])
    text = client.get("/api/v1/file", params={"path": str(files / "about.txt")})
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert text.headers["x-content-type-options"] == "nosniff"
    inside = client.get("/api/v1/file", params={"path": str(files / "more.tar" / "000.png")})
    assert Image.open(io.BytesIO(inside.content)).size == (20, 20)


def test_a_moment_of_a_video_has_the_picture_of_its_time(tmp_path: Path) -> None:
    scenes = [(0.0, "red"), (2.0, "blue")]
    video = write_clip(tmp_path / "video.mp4", scenes, [number / 10 for number in range(40)])
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as opened:
        opened.add(video)
        client = TestClient(create_app(opened, "t"), base_url=HOST, headers={"Authorization": "Bearer t"})
        hits = [get(client, "/api/v1/search", q=colour)["hits"][0] for colour in ("red", "blue")]
        colours = []
        for hit in hits:
            values = {"path": hit["path"], "t": hit["best_s"] if hit["best_s"] is not None else hit["start_s"]}
            picture = Image.open(io.BytesIO(client.get("/api/v1/thumbnail", params=values).content))
            colours.append(picture.resize((1, 1)).getpixel((0, 0)))
    assert colours[0][0] > colours[0][2] + 60 and colours[1][2] > colours[1][0] + 60


def test_what_is_typed_can_be_completed(client: TestClient) -> None:
    assert "lake after:" in get(client, "/api/v1/complete", q="lake af")["completions"]
    assert get(client, "/api/v1/complete")["completions"] is not None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    address=st.sampled_from(
        ["/api/v1/search", "/api/v1/thumbnail", "/api/v1/file", "/api/v1/heat", "/api/v1/complete", "/"]
    ),
    values=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "q",
                    "k",
                    "modality",
                    "path",
                    "t",
                    "size",
                    "like",
                    "min_relevance",
                    "min_score",
                    "all",
                    "rerank",
                    "raw",
                ]
            ),
            st.text(max_size=12) | st.sampled_from(["red", "1e999", "-1", "nan", "image", "\x00", "\ud800"]),
        ),
        max_size=4,
    ),
)
def test_whatever_is_asked_is_answered_or_refused(client: TestClient, address: str, values: list[Any]) -> None:
    plain = [(name, value.encode("utf-8", "replace").decode()) for name, value in values]
    assert client.get(address, params=plain).status_code in (200, 400, 404)


def test_a_port_that_is_taken_is_named(index: Index) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} cannot be used"):
            serve(index, port, None, lambda address: None)


def test_without_the_extra_it_says_how_to_get_it(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsearch.server.run.has_server", lambda: False)
    with pytest.raises(UsageError, match=re.escape(install_hint("serve"))):
        serve(index, 0, None, lambda address: None)


def test_the_command_says_what_to_install_before_it_asks_for_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsearch.server.run.has_server", lambda: False)
    ended = run_program("serve", "--index", tmp_path / "none", code=2)
    assert install_hint("serve") in ended.stderr and "no index" not in ended.stderr


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    save_colour(tmp_path / "files" / "red.png", "red")
    with Index.open(tmp_path / "index", create=True, encoder="builtin") as made:
        made.add(tmp_path / "files")
    command = [sys.executable, "-m", "mmsearch", "serve", "--index", str(tmp_path / "index"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        place, token = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/\?token=(\S{20,})", address).groups()  # type: ignore[union-attr]
        request = urllib.request.Request(f"{place}/api/v1/search?q=red", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert b"red.png" in answer.read()
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{place}/api/v1/search?q=red", timeout=30)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


def test_what_is_said_is_served(tmp_path: Path) -> None:
    save_video(tmp_path / "films" / "film.mp4", ["red", "blue"])
    rows = [(1.0, 2.5, "A violet boat lies there.")]
    (tmp_path / "films" / "film.en.srt").write_text(srt(rows), encoding="utf-8")
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as made:
        made.add(tmp_path / "films")
        client = TestClient(create_app(made, "secret"), base_url=HOST, headers={"Authorization": "Bearer secret"})
        [hit] = get(client, "/api/v1/search", q="said:violet")["hits"]
        assert (hit["modality"], hit["start_s"], hit["text"], hit["language"]) == ("speech", *rows[0][::2], "en")
        part = client.get("/api/v1/file", params={"path": hit["path"]}, headers={"Range": "bytes=0-99"})
        assert part.status_code == 206 and len(part.content) == 100, "so that a player can begin amid it"
        assert client.get("/api/v1/thumbnail", params={"path": hit["path"], "t": 1.0}).status_code == 200


@pytest.mark.slow
def test_a_question_is_spoken(client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("mmsearch.models.speech.registry.default_speech_model", lambda: str(whisper_base()))
    recording = save_sound(
        tmp_path / "question.mka", np.concatenate([silence(0.5), spoken("A black dog in the snow.")])
    )
    answer = client.post("/api/v1/voice", content=recording.read_bytes())
    assert answer.status_code == 200 and answer.json()["text"].lower() == "a black dog in the snow"
    assert client.post("/api/v1/voice", content=b"no sound").status_code == 400
