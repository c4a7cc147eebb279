"""The files of the page, without a browser: they fit together, and ask for nothing from elsewhere."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("starlette")
from starlette.applications import Starlette
from starlette.testclient import TestClient

from mmsearch.server.static import FILES, PAGE, page_routes

SCRIPTS = {
    address: (PAGE / name).read_text(encoding="utf-8")
    for address, (name, kind) in FILES.items()
    if kind.startswith("text/javascript")
}
HTML = (PAGE / "page.html").read_text(encoding="utf-8")


def test_what_a_script_imports_is_served_and_exported_there() -> None:
    for address, script in SCRIPTS.items():
        for names, place in re.findall(r'import \{([^}]*)\} from "([^"]*)"', script):
            target = "/page/" + place.rsplit("/", 1)[-1]
            assert target in SCRIPTS, f"{address} imports {place}"
            for name in filter(None, (one.strip() for one in names.split(","))):
                assert re.search(rf"export (async )?(function|class|const) {re.escape(name)}(?!\w)", SCRIPTS[target]), (
                    f"{address}: {name}"
                )
                assert len(re.findall(rf"(?<!\w){re.escape(name)}(?!\w)", script)) > 1, (
                    f"{address} has no use for {name}"
                )


def test_the_elements_and_drawings_that_scripts_use_are_there() -> None:
    ids = re.findall(r'id="([\w-]+)"', HTML)
    assert len(ids) == len(set(ids))
    drawings = set(re.findall(r"^  (\w+): \"M", SCRIPTS["/page/dom.js"], re.MULTILINE))
    for address, script in SCRIPTS.items():
        assert set(re.findall(r'\$\("([\w-]+)"\)', script)) <= set(ids), address
        used = set(re.findall(r'icon(?:Button)?\("(\w+)"', script)) | set(re.findall(r'drawing: "(\w+)"', script))
        assert used <= drawings, address
    assert set(re.findall(r'data-icon="(\w+)"', HTML)) <= drawings


def test_nothing_comes_from_elsewhere_and_it_is_light() -> None:
    files = [PAGE / name for name, _ in FILES.values()]
    assert sum(file.stat().st_size for file in files) <= 150_000
    for file in files:
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "url(" not in text, file.name
    assert not re.search(r"\sstyle=|\son\w+=|<script>", HTML), "the security policy forbids it"


def test_it_can_be_installed() -> None:
    manifest = json.loads((PAGE / "manifest.webmanifest").read_text(encoding="utf-8"))
    assert manifest["display"] == "standalone" and manifest["start_url"] == "/"
    assert all(icon["src"] in FILES for icon in manifest["icons"])
    assert 'rel="manifest" href="/manifest.webmanifest" crossorigin="use-credentials"' in HTML, "it needs the token"


def test_files_are_served_as_what_they_are() -> None:
    client = TestClient(Starlette(routes=page_routes()))
    for address, (name, kind) in FILES.items():
        answer = client.get(address)
        assert answer.status_code == 200 and answer.content == (PAGE / name).read_bytes()
        assert answer.headers["content-type"] == kind and "no-cache" in answer.headers["cache-control"]
    for address in ("/page/", "/page/../app.py", "/page/%2e%2e/app.py", "/app.py", "/static.py", "/page.html"):
        assert client.get(address).status_code == 404, address
