"""Folders in stores of objects, on a real S3 server of this machine that fails now and then."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmsearch.api import Index
from mmsearch.core.errors import UsageError
from mmsearch.core.shortage import TRIED_AGAIN
from mmsearch.core.types import Report
from mmsearch.sources import RemotePath, WalkRules, located, remote, walk
from tests.support.colours import COLOURS, ColourEncoder, save_colour
from tests.support.s3 import S3Server, s3_server

pytest.importorskip("s3fs")
pytest.importorskip("moto")


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def s3(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """An empty bucket, and no wait between attempts."""
    monkeypatch.setattr(remote, "FIRST_DELAY_S", 0.01)
    server.empty("photos")
    server.asked.clear()
    yield server
    server.share, server.fails = 0.0, lambda method, path: False


def upload(server: S3Server, folder: Path, prefix: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            server.put("photos", f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def reasons(report: Report) -> dict[str, str]:
    return {skip.path: skip.reason for skip in report.skipped}


def answers(index: Index, root: str) -> list[tuple[str, float]]:
    """What a query finds, with places in the root."""
    return [(hit.path.removeprefix(root), round(hit.score, 5)) for hit in index.search("red blue green", k=50)]


def test_addresses_are_paths() -> None:
    path = located("s3://bucket/photos") / "a b" / "c.tar"
    assert isinstance(path, RemotePath) and str(path) == "s3://bucket/photos/a b/c.tar"
    assert located(Path("s3://bucket/x.jpg")) == located("s3://bucket/x.jpg")  # as a command line gives them
    assert str(path.parent.parent) == "s3://bucket/photos" and path.suffix == ".tar"
    assert path.relative_to(located("s3://bucket/photos")).as_posix() == "a b/c.tar"
    assert pickle.loads(pickle.dumps(path)) == path and str(pickle.loads(pickle.dumps(path))) == str(path)
    assert located("file:///photos/a.jpg") == Path("/photos/a.jpg")
    for local in ("photos", "/photos/a:b.jpg", "C:/photos", "notes:/x"):
        assert type(located(local)) is type(Path()), local


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(UsageError, match="pip install gcsfs"):
        remote.filesystem("gs")


def test_a_bucket_answers_as_the_folder_does(index: Index, photos: Path, s3: S3Server, tmp_path: Path) -> None:
    """With what lies beside photos, ignore rules, archives and damaged files."""
    (photos / "sub" / "red.png.txt").write_text("a caption")
    (photos / "sub" / ".mmsearchignore").write_text("secret*\n")
    save_colour(photos / "sub" / "secret.png", "white")
    save_colour(photos / ".hidden.png", "white")
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "notes.xyz").write_text("?")
    with tarfile.open(photos / "samples.tar", "w") as tar:
        for number, colour in enumerate(("red", "blue")):
            data = (save_colour(tmp_path / "one.png", colour, seed=9 + number) or (tmp_path / "one.png")).read_bytes()
            info = tarfile.TarInfo(f"{number}.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    upload(s3, photos, "trip")
    local = index.add(photos)
    with Index.open(tmp_path / "other", create=True, encoder=ColourEncoder()) as other:
        report = other.add("s3://photos/trip")
        assert {path.removeprefix("s3://photos/trip"): reason for path, reason in reasons(report).items()} == {
            path.removeprefix(str(photos)): reason for path, reason in reasons(local).items()
        }
        assert (report.indexed, report.segments) == (local.indexed, local.segments)
        assert answers(other, "s3://photos/trip") == answers(index, str(photos))
        assert other.status()["roots"] == ["s3://photos/trip"]
        found = other.document_at("s3://photos/trip/sub/red.png")
        assert found is not None and found.caption == "a caption"
    with Index.open(tmp_path / "third", create=True, encoder=ColourEncoder()) as third:
        third.add(f"local://{photos}")  # the same files through fsspec
        assert answers(third, f"local://{photos}") == answers(index, str(photos))


@pytest.mark.slow
def test_every_object_of_a_throttled_bucket_is_indexed_and_read_once(
    index: Index, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 objects in pages of 100, every twentieth answer a 503."""
    monkeypatch.setattr(remote, "PAGE", 100)
    for number in range(300):
        colour = list(COLOURS)[number % len(COLOURS)]
        save_colour(tmp_path / "one.png", colour, seed=number)
        s3.put("photos", f"flat/{number:04}.png", (tmp_path / "one.png").read_bytes())
    s3.asked.clear()
    s3.share = 0.05
    report = index.add("s3://photos/flat")
    assert (report.indexed, report.skipped) == (300, ())
    assert s3.asked["503"] >= 15 and s3.asked["list"] >= 3 and s3.asked["get"] >= 300
    s3.asked.clear()
    again = index.add("s3://photos/flat")
    assert (again.unchanged, again.indexed, s3.asked["get"]) == (300, 0, 0)


def test_objects_that_change_move_and_go(index: Index, photos: Path, s3: S3Server) -> None:
    upload(s3, photos, "a")
    index.add("s3://photos/a")
    before = index._directory.catalogue.sql.execute("SELECT COUNT(*) FROM segments").fetchone()
    red = (photos / "sub" / "red.png").read_bytes()
    s3.delete("photos", "a/sub/red.png")
    s3.put("photos", "a/moved.png", red)
    moved = index.add("s3://photos/a")
    assert (moved.indexed, moved.updated, moved.removed) == (0, 1, 0)
    assert index._directory.catalogue.sql.execute("SELECT COUNT(*) FROM segments").fetchone() == before
    # The same size in the same second: the etag tells.
    other = bytearray(red)
    other[-20] ^= 1
    s3.put("photos", "a/moved.png", bytes(other))
    assert index.add("s3://photos/a").unchanged == len(COLOURS) - 1
    s3.put("photos", "a/moved.png", red)
    index.add("s3://photos/a")
    s3.delete("photos", "a/green.png")
    assert index.add("s3://photos/a").removed == 1
    assert index.document_at("s3://photos/a/green.png") is None


def test_nothing_is_deleted_after_a_listing_that_broke_off(index: Index, photos: Path, s3: S3Server) -> None:
    upload(s3, photos, "a")
    index.add("s3://photos/a")
    s3.delete("photos", "a/sub/red.png")
    s3.fails = lambda method, path: "list-type=2" in path and "sub" in path
    report = index.add("s3://photos/a")
    assert report.removed == 0 and any(TRIED_AGAIN in skip.reason for skip in report.skipped)
    s3.fails = lambda method, path: False
    assert index.add("s3://photos/a").removed == 1


def test_a_bucket_that_is_suddenly_empty_is_kept(index: Index, photos: Path, s3: S3Server) -> None:
    upload(s3, photos, "a")
    index.add("s3://photos/a")
    s3.empty("photos")
    report = index.add("s3://photos/a")
    assert (report.removed, report.absent) == (0, len(COLOURS))
    upload(s3, photos, "a")
    assert index.add("s3://photos/a").indexed == 0


def test_what_vanishes_or_stays_throttled_is_listed_and_tried_again(index: Index, photos: Path, s3: S3Server) -> None:
    upload(s3, photos, "a")
    gone = []

    def fails(method: str, path: str) -> bool:
        if method == "GET" and "/sub/red.png" in path and not gone:
            gone.append(path)
            s3.delete("photos", "a/sub/red.png")
        return method == "GET" and "/blue.png" in path

    s3.fails = fails
    report = index.add("s3://photos/a")
    assert report.indexed == len(COLOURS) - 2
    told = {Path(path).name: reason for path, reason in reasons(report).items()}
    assert "deleted after it was listed" in told["red.png"]
    assert told["blue.png"].endswith(TRIED_AGAIN)
    s3.fails = lambda method, path: False
    again = index.add("s3://photos/a")
    assert (again.indexed, again.skipped) == (1, ())


def test_no_bucket_and_no_permission_are_said(index: Index, s3: S3Server) -> None:
    with pytest.raises(UsageError, match="nothing lies at s3://photos/none"):
        index.add("s3://photos/none")
    with pytest.raises(UsageError, match=r"nothing lies at s3://nobucket/x|cannot be looked at"):
        index.add("s3://nobucket/x")


def test_keys_that_can_be_no_paths_are_listed(s3: S3Server) -> None:
    for key in ("a/one.png", "a//two.png", "a/"):
        s3.put("photos", key, b"x")
    met = list(walk(located("s3://photos/a"), WalkRules()))
    assert [one.path for one in met] == ["(empty)", "one.png"] and "empty part" in met[0].reason


def test_pages_show_pictures_of_a_bucket(index: Index, photos: Path, s3: S3Server) -> None:
    from starlette.testclient import TestClient

    from mmsearch.server.app import create_app

    upload(s3, photos, "a")
    index.add("s3://photos/a")
    host = "http://127.0.0.1"
    with TestClient(create_app(index, "secret"), base_url=host, headers={"Authorization": "Bearer secret"}) as client:
        path = "s3://photos/a/sub/blue.png"
        shown = client.get("/api/v1/thumbnail", params={"path": path})
        assert shown.content[:2] == b"\xff\xd8", shown.text
        assert client.get("/api/v1/file", params={"path": path}).content == (photos / "sub" / "blue.png").read_bytes()
    assert index.verify().clean
    assert index.verify(read_bytes=True).clean
    assert index.remove("s3://photos/a") == len(COLOURS)


def test_a_folder_behind_a_web_server(index: Index, photos: Path) -> None:
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(photos))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        try:
            root = f"http://127.0.0.1:{running.server_port}"
            assert index.add(root).indexed == len(COLOURS)
            assert index.add(root).unchanged == len(COLOURS)
            assert len(answers(index, root)) == len(COLOURS)
        finally:
            running.shutdown()
            remote.forget_drivers()


def test_credentials_come_from_the_environment(s3: S3Server, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", os.devnull)
    remote.forget_drivers()
    with pytest.raises(UsageError, match=r"cannot be looked at.*[Cc]redentials"):
        index.add("s3://photos/a")
    remote.forget_drivers()
    shutil.rmtree(index.path, ignore_errors=True)
