"""The site of docs/: built strictly, with nothing from elsewhere; and what lies in deploy/."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from typer.main import get_command

from mmsearch import __all__ as public
from mmsearch.cli.commands import app
from mmsearch.filters import KEYS

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("mkdocs", "material", "mkdocstrings_handlers", "matplotlib"):
        pytest.importorskip(name, reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=390)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return folder


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [(tag, values[name] or "") for name in ("href", "src") if values.get(name)]
        self.names |= {values.get("id") or ""}


def pages(site: Path) -> dict[Path, Links]:
    found = {}
    for page in site.rglob("*.html"):
        found[page] = Links()
        found[page].feed(page.read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
def test_links_lead_somewhere_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    every = pages(site)
    assert len(every) > 15
    for page, parsed in every.items():
        if page.name == "404.html":
            continue  # its links are absolute, since it may stand anywhere
        for tag, link in parsed.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                assert tag == "a" or link.startswith("data:"), f"{page}: {link}"
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{page}: {link}"
            if parts.fragment and target in every and parts.fragment != "__top":
                assert unquote(parts.fragment) in every[target].names, f"{page}: {link}"


@pytest.mark.slow
def test_references_hold_every_command_filter_and_name(site: Path) -> None:
    text = (site / "reference" / "cli" / "index.html").read_text(encoding="utf-8")
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        assert f">mmsearch {name}<" in text
        for param in command.params:
            for flag in [] if param.hidden else [one for one in param.opts if one.startswith("--")]:
                assert flag in text, (name, flag)
    text = (site / "query_language" / "index.html").read_text(encoding="utf-8")
    for key in KEYS:
        assert f"<code>{key}:</code>" in text
    text = (site / "reference" / "python" / "index.html").read_text(encoding="utf-8")
    names = set(re.findall(r'<h2 id="[\w.]*?(\w+)"', text))
    assert set(public) - {"__version__"} <= names
    for plot in re.findall(r'src="(\.\./plots/[^"]*|[^"]*\.svg)"', (site / "plots" / "index.html").read_text()):
        assert (site / "plots" / plot).resolve().stat().st_size > 5000
    assert (site / "search" / "search_index.json").stat().st_size > 50_000


@pytest.mark.slow
def test_every_page_is_in_the_navigation(site: Path) -> None:
    links = [link for _, link in pages(site)[site / "index.html"].links]
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("").as_posix()
        assert name == "index" or f"{name}/" in links, name


# What lies in deploy/


def dockerfile() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def test_the_image_is_slim_without_rights_and_has_volumes() -> None:
    steps = dockerfile()
    bases = [value for name, value in steps if name == "FROM"]
    assert bases and all(re.search(r"^python:3\.\d+-slim\b", base) for base in bases), "a pinned, slim base"
    last = steps[max(i for i, (name, _) in enumerate(steps) if name == "FROM") :]
    assert [value for name, value in last if name == "USER"][-1] not in ("root", "0")
    assert last.index(("USER", "mmsearch")) < min(i for i, (name, _) in enumerate(last) if name == "ENTRYPOINT")
    assert '["/photos", "/index"]' in [value for name, value in last if name == "VOLUME"]
    for name, value in steps:
        assert name != "ADD" and "sudo" not in value and "curl" not in value
        if "pip install" in value:
            assert "--no-cache-dir" in value
        if name in ("ENTRYPOINT", "CMD"):
            assert value.startswith("["), "exec form, so that signals arrive"
        if name == "COPY" and "--from" not in value:
            *sources, _ = value.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in (ROOT / ".dockerignore").read_text().split(), f"{source} is ignored"


@pytest.mark.slow
def test_the_image_is_built_where_there_is_docker() -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("needs docker, running")
    command = ["docker", "build", "--file", "deploy/Dockerfile", "--tag", "mmsearch-test", "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=390)
    assert done.returncode == 0, done.stderr[-2000:]
    told = subprocess.run(["docker", "run", "--rm", "mmsearch-test", "--version"], capture_output=True, text=True)
    assert told.stdout.startswith("mmsearch ")


@pytest.mark.parametrize("unit", sorted(DEPLOY.glob("*.service")), ids=lambda unit: unit.name)
def test_the_units_are_right(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text()
    command = re.search(r"^ExecStart=(\S+) (\w+)", text, re.MULTILINE)
    assert command and command[2] in get_command(app).commands  # type: ignore[attr-defined]
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    program = tmp_path / "mmsearch"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / unit.name).write_text(text.replace(command[1], str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", str(tmp_path / unit.name)], capture_output=True, text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0 and unit.name not in done.stderr, done.stderr


@pytest.mark.slow
def test_the_notebook_groups_and_draws_a_library(tmp_path: Path) -> None:
    """Its cells run as one program, in a folder with photos; it is kept without what they print."""
    for name in ("sklearn", "skimage", "matplotlib"):
        pytest.importorskip(name, reason="needs the extras plot and demo")
    from PIL import Image
    from skimage import data

    notebook = json.loads((ROOT / "docs" / "map.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert notebook["nbformat"] == 4 and not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    (tmp_path / "photos").mkdir()
    for name in ("chelsea", "coffee", "rocket", "astronaut"):
        Image.fromarray(getattr(data, name)()).resize((300, 300)).save(tmp_path / "photos" / f"{name}.jpg")
    program = "\n".join("".join(cell["source"]) for cell in cells)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "MMSEARCH_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "4 pictures," in done.stdout
    with Image.open(tmp_path / "map.png") as drawn:
        assert drawn.size == (1000, 1000) and len(drawn.convert("RGB").getcolors(1 << 20) or ()) > 1000
