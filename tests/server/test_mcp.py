"""The server for assistants, asked by the SDK's own client: as a process, over HTTP, and where it is wrong use."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmsearch.api import Index
from tests.support.colours import COLOURS, ColourEncoder, save_colour
from tests.support.sound import save_video, srt

pytest.importorskip("mcp")
import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from mmsearch.server.mcp import create_mcp

ROOT = Path(__file__).parents[2]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    for number, name in enumerate(COLOURS):
        save_colour(folder / f"{name}.png", name, (400, 300), seed=number)
    (folder / "about.txt").write_text("Everything is red here, says the café.\n" * 3, encoding="utf-8")
    save_video(folder / "film.mp4", ["red", "blue", "red"])
    rows = [(3.5, 5.0, "A violet boat lies there.")]
    (folder / "film.en.srt").write_text(srt(rows), encoding="utf-8")
    save_colour(tmp_path / "secret.png", "red")
    return folder


@pytest.fixture
def index(files: Path, tmp_path: Path) -> Index:
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as opened:
        assert not opened.add(files).skipped
        yield opened


def asked(index: Index, questions: Callable[[Client], Awaitable[None]], **options: Any) -> None:
    """Lets a client of this process ask a server of this process."""

    async def run() -> None:
        async with Client(create_mcp(index, **options)) as client:
            await questions(client)

    asyncio.run(run())


async def call(client: Client, tool: str, **arguments: Any) -> tuple[dict[str, Any], list[Image.Image]]:
    """What a tool says, and the pictures that come with it."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    values = json.loads(result.content[0].text)  # type: ignore[union-attr]
    assert values == result.structured_content and values["schema"] >= 3
    pictures = []
    for content in result.content[1:]:
        if content.type == "image":
            assert content.mime_type == "image/jpeg"
            pictures.append(Image.open(io.BytesIO(base64.b64decode(content.data))))
    return values, pictures


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    """The sentence with which a call is refused."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error and len(result.content) == 1
    text = str(result.content[0].text)  # type: ignore[union-attr]
    assert "\n" not in text and "Traceback" not in text
    return text


def test_tools_say_what_they_take(index: Index) -> None:
    async def questions(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"search", "similar", "show", "moments", "status"}
        for tool in tools.values():
            assert tool.description and tool.annotations and tool.annotations.read_only_hint
            for name, schema in tool.input_schema["properties"].items():
                assert schema.get("description"), (tool.name, name)
        assert "after:2021-07" in (tools["search"].description or "")
        assert client.server_info.name == "mmsearch" and "search" in (client.instructions or "")

    asked(index, questions)


def test_it_finds_what_python_finds(index: Index, files: Path) -> None:
    async def questions(client: Client) -> None:
        values, pictures = await call(client, "search", text="blue type:image", k=3, pictures=2)
        expected = index.search("blue type:image", k=3, collapse=True)
        assert [hit["path"] for hit in values["hits"]] == [hit.path for hit in expected]
        assert values["hits"][0]["width"] == 400 and values["hits"][0]["date"]
        assert len(pictures) == 2 and max(pictures[0].size) <= 320
        red, green, blue = pictures[0].resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]
        assert blue > red and blue > green
        values, _ = await call(client, "search", text="type:text")
        assert [Path(hit["path"]).name for hit in values["hits"]] == ["about.txt"]
        sent = base64.b64encode((files / "green.png").read_bytes()).decode()
        for picture in (sent, f"data:image/png;base64,{sent}"):
            values, _ = await call(client, "search", image_base64=picture, k=1)
            assert Path(values["hits"][0]["path"]).name == "green.png"
        values, _ = await call(client, "search", text="red after:2900")
        assert (values["hits"] == [] and "after" in values["reason"]) or "later" in values["reason"]

    asked(index, questions)


def test_it_shows_what_is_in_a_file(index: Index, files: Path) -> None:
    async def questions(client: Client) -> None:
        values, [picture] = await call(client, "show", path=str(files / "yellow.png"))
        assert values["modality"] == "image" and values["bytes"] == (files / "yellow.png").stat().st_size
        assert max(picture.size) == 400
        for at_s, loudest in ((1.0, 0), (4.0, 2)):
            values, [picture] = await call(client, "show", path=str(files / "film.mp4"), at_s=at_s, size=64)
            colour = picture.resize((1, 1)).getpixel((0, 0))
            assert colour[loudest] == max(colour)  # type: ignore[index,arg-type]
        assert values["said"] == [{"start_s": 3.5, "end_s": 5.0, "text": "A violet boat lies there.", "language": "en"}]
        values, pictures = await call(client, "show", path=str(files / "about.txt"))
        assert values["text"].startswith("Everything is red here, says the café.") and not pictures

    asked(index, questions)


def test_similar_and_moments(index: Index, files: Path) -> None:
    async def questions(client: Client) -> None:
        values, pictures = await call(client, "similar", path=str(files / "red.png"), k=2, pictures=1)
        names = [Path(hit["path"]).name for hit in values["hits"]]
        assert "red.png" not in names and len(names) == 2 and len(pictures) == 1
        values, _ = await call(
            client, "similar", path=str(files / "film.mp4"), at_s=4.0, text="type:image", k=1, strict=False
        )
        assert Path(values["hits"][0]["path"]).name == "blue.png"
        values, pictures = await call(client, "moments", path=str(files / "film.mp4"), text="red", k=4, pictures=2)
        seen = [hit for hit in values["moments"] if hit["modality"] == "video"]
        assert sorted(round(hit["start_s"]) for hit in seen) == [0, 6] and pictures
        values, _ = await call(client, "status")
        assert values["documents"]["image"] == len(COLOURS) and values["roots"] == [str(files)]

    asked(index, questions)


def test_what_is_not_indexed_does_not_leave(index: Index, files: Path, tmp_path: Path) -> None:
    secret = str(tmp_path / "secret.png")
    (files / "new.png").symlink_to(secret)
    blue = files / "blue.png"
    blue.unlink()
    blue.symlink_to(secret)  # what an attacker may put in the place of an indexed file

    async def questions(client: Client) -> None:
        near = (str(files / "new.png"), str(files / ".." / "secret.png"))
        for path in (secret, *near, "/etc/passwd", "", "\0", "~nobody"):
            for tool, more in (("show", {}), ("similar", {}), ("moments", {"text": "red"})):
                assert "not in the index" in await refused(client, tool, path=path, **more)
        assert "leads to another file" in await refused(client, "show", path=str(blue))
        values, pictures = await call(client, "search", text="blue", k=1, pictures=1)
        assert Path(values["hits"][0]["path"]).name == "blue.png" and not pictures

    asked(index, questions)


def test_wrong_use_is_told_in_a_sentence(index: Index, files: Path) -> None:
    async def questions(client: Client) -> None:
        assert "character 5" in await refused(client, "search", text="cat typ:image")
        assert "text or an image" in await refused(client, "search")
        assert "k: input should be less than or equal to 100" in await refused(client, "search", text="red", k=1000)
        assert "did you mean text?" in await refused(client, "search", texts="red")
        assert "path: field required" in await refused(client, "show")
        assert "no base64" in await refused(client, "search", image_base64="%%%")
        assert "cannot be read" in await refused(client, "search", image_base64="aGVsbG8=")
        assert "no video" in await refused(client, "moments", path=str(files / "red.png"), text="red")
        assert "no picture" in await refused(client, "similar", path=str(files / "about.txt"))
        (files / "green.png").write_bytes(b"no picture any more")
        assert "no picture can be read" in await refused(client, "show", path=str(files / "green.png"))
        assert "index" in await refused(client, "index")  # there is no such tool

    asked(index, questions)


def test_it_indexes_only_where_it_is_allowed(index: Index, files: Path, tmp_path: Path) -> None:
    save_colour(files / "new" / "new.png", "red", seed=99)

    async def questions(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools["index"].annotations and not tools["index"].annotations.read_only_hint
        assert "context" not in tools["index"].input_schema["properties"]
        assert "not below an indexed folder" in await refused(client, "index", paths=[str(tmp_path)])
        assert "not below" in await refused(client, "index", paths=[str(files / ".." / "secret.png")])
        values, _ = await call(client, "index", paths=[str(files / "new")])
        assert values["indexed"] == 1 and values["skipped"] == []
        (files / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        values, _ = await call(client, "index")
        assert values["skipped_in_all"] == 1 and values["unchanged"] == len(COLOURS) + 3

    asked(index, questions, allow_index=True)


# As a process


@pytest.fixture
def builtin(files: Path, tmp_path: Path) -> Path:
    with Index.open(tmp_path / "builtin", create=True, encoder="builtin") as opened:
        opened.add([files / "red.png", files / "blue.png"])
    return tmp_path / "builtin"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_over_stdio(builtin: Path, files: Path) -> None:
    arguments = ["-m", "mmsearch", "mcp", "--index", str(builtin)]
    server = StdioServerParameters(command=sys.executable, args=arguments, env=environment())

    async def run() -> None:
        async with Client(server, read_timeout_seconds=60) as client:
            assert len((await client.list_tools()).tools) == 5
            values, [picture] = await call(client, "search", text="something red", k=1, pictures=1)
            assert Path(values["hits"][0]["path"]).name == "red.png" and picture.size == (320, 240)
            assert "not in the index" in await refused(client, "show", path=str(files / "green.png"))

    asyncio.run(run())


@contextlib.asynccontextmanager
async def over_http(address: str, token: str) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(address, http_client=http)) as client,
    ):
        yield client


def test_over_http(builtin: Path) -> None:
    command = [sys.executable, "-m", "mmsearch", "mcp", "--http", "--port", "0", "--index", str(builtin)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stderr is not None
        address = process.stderr.readline().strip()
        token = process.stderr.readline().strip().removeprefix("Authorization: Bearer ")
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/mcp", address) and len(token) > 20

        async def run() -> None:
            async with over_http(address, token) as client:
                values, pictures = await call(client, "search", text="something red", k=1, pictures=1)
                assert Path(values["hits"][0]["path"]).name == "red.png" and len(pictures) == 1
            async with httpx2.AsyncClient() as http:
                assert (await http.post(address, json={})).status_code == 401
                bad = {"Authorization": f"Bearer {token}", "Host": "example.org"}
                assert (await http.post(address, json={}, headers=bad)).status_code == 403

        try:
            asyncio.run(run())
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0


def test_without_the_extra_it_says_how_to_get_it(builtin: Path) -> None:
    hide = "import sys; sys.modules['mcp'] = None; import importlib.util as u; find = u.find_spec; "
    hide += "u.find_spec = lambda name, *more: None if name == 'mcp' else find(name, *more); "
    for words in ("mcp --help", "mcp"):
        program = f"{hide} sys.argv = ['mmsearch', *{words.split()!r}]; from mmsearch.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, env=environment(), timeout=60
        )
        assert 'pip install -e ".[mcp]"' in done.stdout + done.stderr, (words, done)
        assert done.returncode == (0 if "--help" in words else 2)
