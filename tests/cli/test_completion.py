"""What a shell offers: asked as bash and zsh ask it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_startup import ENGINE, HEAVY, modules_after

ROOT = Path(__file__).parents[2]
PROGRAM = "import sys; sys.argv = ['mmsearch']; from mmsearch.cli import main; main()"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("photos", "paintings", "videos"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    return tmp_path


def variables(line: str, home: Path) -> dict[str, str]:
    words = line.split(" ")
    asked = {"_MMSEARCH_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    return {**os.environ, **asked, "MMSEARCH_HOME": str(home), "PYTHONPATH": str(ROOT)}


def offered(line: str, home: Path) -> list[str]:
    """What bash would offer after ``line``, which ends where the cursor stands."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=variables(line, home), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and not done.stderr, done
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("mmsearch que", {"query"}),
        ("mmsearch query --index p", {"paintings", "photos"}),
        ("mmsearch serve --store v", {"videos"}),
        ("mmsearch query type:im", {"type:image"}),
        ("mmsearch query af", {"after:"}),
        ("mmsearch query --modality s", {"sound", "speech"}),
        ("mmsearch query --device c", {"cpu", "cuda"}),
        ("mmsearch optimize --recipe ivf_", {"ivf_flat", "ivf_pq", "ivf_rabitq"}),
        ("mmsearch index --model built", {"builtin", "builtin+views"}),
        ("mmsearch index --speech-model whisper-b", {"whisper-base", "whisper-base.en"}),
        ("mmsearch switch ViT-B-32/laion", {"ViT-B-32/laion2b_s34b_b79k"}),
        ("mmsearch config set query.str", {"query.strict"}),
        ("mmsearch config set all.ind", {"all.index"}),
        ("mmsearch help fil", {"filters"}),
        ("mmsearch query --index nothing-like-it", set()),
    ],
)
def test_what_is_offered(line: str, some: set[str], home: Path) -> None:
    assert set(offered(line, home)) == some


def test_nothing_breaks_where_nothing_can_be_read(home: Path) -> None:
    (home / "config.toml").write_text("no toml at all =")
    environment = {"MMSEARCH_CONFIG": str(home / "config.toml")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**variables("mmsearch query --index p", home), **environment},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["paintings", "photos"] and not done.stderr


@pytest.mark.parametrize("line", ["mmsearch query --index p", "mmsearch query type:", "mmsearch optimize --recipe "])
def test_a_tab_imports_nothing_heavy(line: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables(line, home).items():
        monkeypatch.setenv(name, value)
    assert not modules_after(PROGRAM) & (HEAVY | ENGINE)
