"""The documents say what the code does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from skimage import data as skimage_data
from typer.main import get_command

from mmsearch import __version__
from mmsearch.cli.commands import app
from mmsearch.filters import KEYS

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / "docs" / "guide.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks("python", page.read_text())], ids=lambda page: page.name
)
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path) -> None:
    """All Python blocks of a page in their order, as one program, beside a folder ``photos``."""
    (tmp_path / "photos").mkdir()
    for name in ("chelsea", "coffee", "rocket"):
        Image.fromarray(getattr(skimage_data, name)()).resize((300, 300)).save(tmp_path / "photos" / f"{name}.jpg")
    program = tmp_path / "example.py"
    program.write_text("\n".join(blocks("python", page.read_text())))
    environment = {
        **os.environ, "MMSEARCH_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", program.name],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_guide_names_every_command_and_filter() -> None:
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        assert f"mmsearch {name}" in GUIDE, name
    for key in KEYS:
        assert f"`{key}:" in GUIDE, key


def test_every_option_in_readme_and_guide_exists() -> None:
    group = get_command(app)
    known = {option for command in [group, *group.commands.values()] for p in command.params for option in p.opts}  # type: ignore[attr-defined]
    known |= {"--help", "--version"}
    for line in "\n".join(blocks("console") + blocks("bash") + blocks("console", GUIDE)).splitlines():
        if "mmsearch " in line and "pip install" not in line:
            for option in re.findall(r"(?<=\s)--[a-z-]+", line):
                assert option in known, f"{option} in {line!r}"


def test_the_test_command_of_the_readme_is_what_ci_runs() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    command = next(block for block in blocks("bash") if "pytest" in block)
    assert 'pip install -e ".[dev]"' in command and 'pip install --quiet -e ".[dev]"' in ci
    assert "python -m pytest" in command and "python -m pytest" in ci


def test_one_version_everywhere() -> None:
    assert f'\nversion = "{__version__}"\n' in (ROOT / "pyproject.toml").read_text()
    assert f"## {__version__}" in CHANGELOG


def test_figures_name_benchmarks_that_exist() -> None:
    text = README + "".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"benchmarks/[\w/]+\.(?:py|json)", text))
    assert named
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize(
    "document", ["README.md", "CHANGELOG.md", "indexes/README.md", *(f"docs/{page.name}" for page in PAGES)]
)
def test_links_inside_the_repository_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        assert ((ROOT / document).parent / target).exists(), target
