"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from mmsearch import __version__
from mmsearch.cli.commands import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_readme_names_every_command() -> None:
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        assert f"mmsearch {name}" in README, name


def test_every_option_in_the_readme_exists() -> None:
    group = get_command(app)
    known = {option for command in [group, *group.commands.values()] for p in command.params for option in p.opts}  # type: ignore[attr-defined]
    known |= {"--help", "--version"}
    for line in "\n".join(blocks("console") + blocks("bash")).splitlines():
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


def test_figures_in_the_readme_name_benchmarks_that_exist() -> None:
    named = set(re.findall(r"benchmarks/[\w/]+\.(?:py|json)", README))
    assert named
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("document", ["README.md", "CHANGELOG.md", "indexes/README.md"])
def test_links_inside_the_repository_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        assert ((ROOT / document).parent / target).exists(), target
