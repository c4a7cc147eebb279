"""Queries in other languages, and those that no encoder reads, on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from skimage import data as skimage_data
from typer.testing import CliRunner

from mmsearch.cli import app
from mmsearch.core.errors import UsageError

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("languages")
    (folder / "photos").mkdir()
    for name in ("chelsea", "coffee", "rocket", "astronaut"):
        picture = Image.fromarray(getattr(skimage_data, name)()).resize((300, 300))
        picture.save(folder / "photos" / ("zzzqqxx.jpg" if name == "coffee" else f"{name}.jpg"))
    done = RUNNER.invoke(app, ["index", str(folder / "photos"), "--index", str(folder / "index")])
    assert done.exit_code == 0, done.output
    return folder / "index"


def first(index: Path, *arguments: str) -> str:
    done = RUNNER.invoke(app, ["query", "--index", str(index), "--paths", "-k", "1", "--all", *arguments])
    assert done.exit_code == 0, done.output
    return Path(done.stdout.strip()).stem


@pytest.mark.parametrize("cat", ["cat", "猫", "Katze", "кошка", "un gato", "قطة", "kočka"])
def test_a_cat_is_found_in_any_language(index: Path, cat: str) -> None:
    assert first(index, cat) == "chelsea"


def test_the_option_overrules_the_guess(index: Path) -> None:
    assert first(index, "chat", "--language", "fr") == "chelsea"
    done = RUNNER.invoke(app, ["query", "--index", str(index), "chat", "--language", "french!"])
    assert isinstance(done.exception, UsageError) and "'french!' is no language" in str(done.exception)


def test_what_cannot_be_read_is_looked_up_in_names_alone(index: Path) -> None:
    done = RUNNER.invoke(app, ["query", "--index", str(index), "🐱"])
    assert done.exit_code == 1 and done.stdout == ""
    assert done.stderr.count("reads nothing in '🐱'") == 1 and "nothing found: no name" in done.stderr
    done = RUNNER.invoke(app, ["query", "--index", str(index), "--paths", "zzzqqxx"])
    assert done.exit_code == 0 and [Path(line).stem for line in done.stdout.splitlines()] == ["zzzqqxx"]
    assert "reads nothing in 'zzzqqxx'" in done.stderr
    done = RUNNER.invoke(app, ["query", "--index", str(index), "zzzqqxy"])
    assert done.exit_code == 1
