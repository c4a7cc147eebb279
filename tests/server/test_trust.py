"""What the server does not show, and whom it does not wait for."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmsearch.api import Index
from mmsearch.server import run as server_run
from mmsearch.server.app import create_app
from tests.support.colours import ColourEncoder, save_colour

pytest.importorskip("fastapi")
from starlette.testclient import TestClient


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    for name in ("red", "blue", "green", "black"):
        save_colour(tmp_path / "files" / "sub" / f"{name}.png", name)
    save_colour(tmp_path / "outside" / "white.png", "white")
    (tmp_path / "files" / "linked.png").symlink_to(tmp_path / "outside" / "white.png")
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as made:
        made.add(tmp_path / "files")
        yield made


def client_of(index: Index, port: int = 8642) -> TestClient:
    client = TestClient(create_app(index, "secret"), base_url=f"http://127.0.0.1:{port}")
    client.headers["Authorization"] = "Bearer secret"
    return client


def test_what_was_swapped_for_a_link_is_not_shown(index: Index, tmp_path: Path) -> None:
    """The file itself, a folder above it, and a link that was indexed and leads elsewhere since."""
    client, files = client_of(index), tmp_path / "files"
    shown = [files / "sub" / "red.png", files / "sub" / "blue.png", files / "linked.png"]

    def codes() -> list[int]:
        return [
            client.get(f"/api/v1/{what}", params={"path": str(path)}).status_code
            for path in shown
            for what in ("file", "thumbnail")
        ]

    assert codes() == [200] * 6, "a link that leads where it led when it was indexed is shown"
    secret = tmp_path / "secret.png"
    save_colour(secret, "violet", seed=9)
    shown[0].unlink()
    shown[0].symlink_to(secret)
    assert codes() == [400, 400, 200, 200, 200, 200]
    shown[2].unlink()
    shown[2].symlink_to(secret)
    assert codes() == [400, 400, 200, 200, 400, 400]
    (files / "sub").rename(files / "other")
    save_colour(tmp_path / "elsewhere" / "blue.png", "orange", seed=9)
    (files / "sub").symlink_to(tmp_path / "elsewhere")
    assert codes()[2:4] == [400, 400]
    assert client.get("/api/v1/search", params={"like": str(shown[2])}).status_code == 400
    save_colour(files / "other" / "red.png", "red", seed=3)


def test_a_file_whose_vector_was_made_elsewhere_is_shown(index: Index, tmp_path: Path) -> None:
    """Its name in the index is its whole path."""
    path = tmp_path / "outside" / "white.png"
    index.add_embeddings([[1.0, 0.0, 0.0, 0.0]], [{"path": str(path), "modality": "image"}])
    client = client_of(index)
    assert client.get("/api/v1/thumbnail", params={"path": str(path)}).headers["content-type"] == "image/jpeg"
    path.rename(tmp_path / "outside" / "moved.png")
    path.symlink_to(tmp_path / "outside" / "moved.png")
    assert client.get("/api/v1/file", params={"path": str(path)}).status_code == 400


def test_an_edited_file_is_shown(index: Index, tmp_path: Path) -> None:
    path = save_colour(tmp_path / "files" / "sub" / "red.png", "orange", seed=4)
    assert client_of(index).get("/api/v1/file", params={"path": str(path)}).content == path.read_bytes()


def test_servers_side_by_side_keep_their_cookies(index: Index) -> None:
    names = {
        client_of(index, port).get("/?token=secret", follow_redirects=False).headers["set-cookie"].partition("=")[0]
        for port in (8642, 8643)
    }
    assert len(names) == 2


def test_a_request_that_does_not_end_is_closed(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_run, "REQUEST_S", 0.3)
    import uvicorn

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    config = uvicorn.Config(
        create_app(index, "secret"), http=server_run.impatient_protocol(), log_level="critical", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        for sent in (b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: "):
            with socket.create_connection(listener.getsockname(), timeout=30) as waiting:
                waiting.sendall(sent)
                assert waiting.recv(1) == b"", "closed by the server"
        with socket.create_connection(listener.getsockname(), timeout=30) as whole:
            whole.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert whole.recv(12) == b"HTTP/1.1 401"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


def test_an_upload_that_does_not_arrive_is_refused(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsearch.server.searching.UPLOAD_S", 0.2)

    def slowly() -> Iterator[bytes]:
        yield b"\x89PNG"
        time.sleep(1)
        yield b"rest"

    answer = client_of(index).post("/api/v1/search", content=slowly())
    assert answer.status_code == 400  # the test client sends a body in one piece, so it may only be no picture
    assert "picture" in answer.json()["detail"]


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_an_index_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        save_colour(tmp_path / "files" / "red.png", "red")
        with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as made:
            made.add(tmp_path / "files")
            made.backup(tmp_path / "copy")
    finally:
        os.umask(before)
    for folder in (tmp_path / "index", tmp_path / "copy"):
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {one.stat().st_mode & 0o077 for one in folder.iterdir()} == {0}
    (tmp_path / "index").chmod(0o750)
    (tmp_path / "index" / "manifest.json").chmod(0o640)
    with Index.open(tmp_path / "index", encoder=ColourEncoder()) as opened:
        opened.add(tmp_path / "files")
    assert (tmp_path / "index" / "manifest.json").stat().st_mode & 0o777 == 0o640, "opened to others on purpose"
