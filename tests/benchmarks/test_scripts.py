"""Every benchmark runs from a clone: it imports what it needs and says what it does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(BENCHMARKS.glob("*.py"))


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_says_what_it_does(script: Path, tmp_path: Path) -> None:
    done = run(str(script), "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--no-write" in done.stdout and len(done.stdout) > 300


def test_what_is_shared_is_that_of_the_clone(tmp_path: Path) -> None:
    """Also in the processes that a benchmark starts, and where another mmsearch is installed."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import common, subprocess; "
        "print(subprocess.check_output([sys.executable, '-c', 'import mmsearch; print(mmsearch.__file__)'], text=True))"
    )
    done = run("-c", code, str(BENCHMARKS), cwd=tmp_path)
    assert done.stdout.strip() == str(BENCHMARKS.parent / "mmsearch" / "__init__.py"), done.stderr


def test_results_are_written_in_one_way(tmp_path: Path) -> None:
    """By `common.output`, which adds commit, machine and versions."""
    for script in SCRIPTS:
        text = script.read_text()
        assert "common.output" in text, script.name
        assert not re.search(r"ArgumentParser\(|RESULTS|results.*write_text", text), script.name
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; "
        "from common.output import command_line, publish; "
        "options = command_line('It counts.').parse_args(['--results', '.']); publish('counts', {'one': 1}, options); "
        "options.no_write = True; publish('other', {'one': 1}, options)"
    )
    done = run("-c", code, str(BENCHMARKS), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (result,) = tmp_path.iterdir()
    written = json.loads(result.read_text())
    assert (written["benchmark"], written["one"]) == ("counts", 1)
    assert {"commit", "date", "cpu", "cores", "python", "libraries"} <= written["environment"].keys()
