"""Where the command listens, and what it says about that."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from mmsearch.api import Index
from mmsearch.core.errors import UsageError
from mmsearch.server import run as server_run
from tests.support.colours import ColourEncoder, save_colour

pytest.importorskip("fastapi")
from starlette.testclient import TestClient

from mmsearch.server.app import create_app


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an index of the built-in encoder."""
    made = tmp_path_factory.mktemp("run")
    save_colour(made / "files" / "red.png", "red")
    with Index.open(made / "index", create=True, encoder="builtin") as index:
        index.add(made / "files")
    return made


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as made:
        yield made


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "mmsearch", "serve", "--index", str(folder / "index"), *words]


def test_servers_side_by_side_take_the_next_ports(folder: Path) -> None:
    """Each says where it listens, and both answer."""
    with ExitStack() as stack:
        if not _is_free(server_run.PORT):
            pytest.skip(f"something else listens at {server_run.PORT}")
        taken = stack.enter_context(socket.socket())
        taken.bind(("127.0.0.1", server_run.PORT))
        taken.listen()
        process = stack.enter_context(
            subprocess.Popen(command(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        assert process.stdout is not None and process.stderr is not None
        port = int(re.search(r":(\d+)/", process.stdout.readline()).group(1))  # type: ignore[union-attr]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30) as answer:
            assert b"ok" in answer.read()
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
        assert server_run.PORT < port < server_run.PORT + server_run.MORE_PORTS
        assert f"port {server_run.PORT} is taken" in said and process.returncode == 0


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_the_home_network_gets_in_with_the_token(folder: Path) -> None:
    """On a terminal with a code for a camera, which leads to the address."""
    address = server_run.lan_address()
    if address is None:
        pytest.skip("this machine is in no network")
    here, there = pty.openpty()
    with subprocess.Popen(
        command(folder, "--host", "0.0.0.0", "--port", "0", "--token", "secret"), stdout=subprocess.PIPE, stderr=there,
        text=True,
    ) as process:  # fmt: skip
        os.close(there)
        assert process.stdout is not None
        printed = process.stdout.readline().strip()
        place, _, _ = printed.partition("/?token=secret")
        assert place.startswith(f"http://{address}:")
        asked = urllib.request.Request(f"{place}/api/v1/status", headers={"Authorization": "Bearer secret"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{place}/api/v1/status", timeout=30)
        process.send_signal(signal.SIGINT)
        process.wait(30)
    code = os.read(here, 1 << 16).decode().replace("\r\n", "\n")
    os.close(here)
    assert server_run.qr_code(printed) in code


def test_the_code_leads_to_the_address() -> None:
    """As a reader of QR codes sees it on a dark terminal."""
    cv2 = pytest.importorskip("cv2")
    for address in ("http://192.168.1.20:8642/?token=AbC-_12345678901234567890123456", "http://10.0.0.1:1/?token=x"):
        rows = []
        for line in server_run.qr_code(address).split("\n"):
            rows += [[c in "\u2588\u2580" for c in line], [c in "\u2588\u2584" for c in line]]
        picture = np.kron(np.array(rows, dtype=np.uint8) * 255, np.ones((8, 8), np.uint8))
        picture = np.pad(picture, 40, constant_values=255)
        assert cv2.QRCodeDetector().detectAndDecode(picture)[0] == address


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
def test_addresses_of_others_are_refused(index: Index, host: str) -> None:
    with pytest.raises(UsageError, match="is no address of this machine"):
        server_run.serve(index, 0, None, lambda address: None, host=host)


@pytest.mark.parametrize("origin", ["photos.example", "https://photos.example/", "*", "https://a b"])
def test_an_origin_is_a_scheme_and_a_host(index: Index, origin: str) -> None:
    with pytest.raises(UsageError, match="is no origin"):
        server_run.serve(index, 0, None, lambda address: None, cors_origins=[origin])


def test_names_of_other_machines_are_refused_in_a_network_too(index: Index) -> None:
    """Else a page of the web could rename its server to this one, and read the answers."""
    client = TestClient(create_app(index, "s", hosts=None), headers={"Authorization": "Bearer s"})
    name = socket.gethostname()
    for host, status in (
        ("192.168.1.20:8642", 200), ("[fe80::1]:8642", 200), ("localhost:1", 200), (f"{name}:8642", 200),
        ("evil.example", 403), ("192.168.1.20.evil.example:8642", 403), ("", 403),
    ):  # fmt: skip
        assert client.get("/api/v1/complete", headers={"Host": host}).status_code == status, host


@pytest.mark.parametrize(("language", "runner"), [("py", [sys.executable]), ("sh", ["sh", "-e"])])
def test_the_clients_of_the_documentation(folder: Path, language: str, runner: list[str], tmp_path: Path) -> None:
    if language == "sh" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    page = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
    [block] = re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "client").write_text(block)
    shutil.copy(folder / "files" / "red.png", tmp_path / "photo.png")
    environment = {**os.environ, "MMSEARCH_TOKEN": "secret"}
    with subprocess.Popen(
        command(folder, "--port", "0"), stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        environment["SERVER"] = process.stdout.readline().partition("/?")[0]
        done = subprocess.run(
            [*runner, "client"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        process.send_signal(signal.SIGINT)
    assert done.returncode == 0 and "red.png" in done.stdout, done.stdout + done.stderr
