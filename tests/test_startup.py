"""What a process imports before it answers: nothing heavy that its command has no use for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmsearch.api import Index
from tests.support.colours import save_colour

ROOT = Path(__file__).parent.parent
HEAVY = {
    "torch", "open_clip", "torchvision", "transformers", "pandas", "scipy", "matplotlib", "fsspec", "s3fs", "ray",
    "faster_whisper", "ctranslate2",
    "pymilvus", "milvus_lite",
}  # fmt: skip
"""Never, on the way of the built-in encoder."""
ENGINE = {"faiss", "onnxruntime", "tokenizers", "numpy", "PIL", "av", "sqlite_utils", "rich.progress", "pathspec"}
"""Not before there is something to do."""

RUN = """
import json, sys
code = 0
try:
    exec(sys.argv[1])
except SystemExit as ended:
    code = ended.code or 0
sys.stdout.flush()
print("\\n" + json.dumps({"code": code, "modules": sorted(sys.modules)}))
"""


def modules_after(statement: str, *arguments: str) -> set[str]:
    """The modules that a fresh interpreter has imported after a statement, which must end well."""
    process = subprocess.run(
        [sys.executable, "-c", RUN, statement, *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    answer = json.loads(process.stdout.splitlines()[-1])
    assert answer["code"] == 0, process.stdout + process.stderr
    return set(answer["modules"])


def command(*words: str) -> set[str]:
    """The same after a command line."""
    return modules_after(f"import sys; sys.argv = ['mmsearch', *{words!r}]; from mmsearch.cli import main; main()")


@pytest.fixture(scope="module")
def builtin_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("startup")
    save_colour(folder / "photos" / "blue.png", "blue")
    with Index.open(folder / "index", create=True, encoder="builtin") as index:
        index.add(folder / "photos")
    return folder / "index"


def test_this_test_can_fail() -> None:
    assert {"onnxruntime", "numpy"} <= modules_after("import onnxruntime")


def test_import() -> None:
    assert not modules_after("import mmsearch") & (HEAVY | ENGINE)


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["index", "--help"], ["query", "--help"]])
def test_help(words: list[str]) -> None:
    assert not command(*words) & (HEAVY | ENGINE)


def test_status(builtin_index: Path) -> None:
    assert not command("status", "--index", str(builtin_index)) & (HEAVY | {"faiss", "onnxruntime", "av"})


def test_query(builtin_index: Path) -> None:
    found = command("query", "something blue", "--index", str(builtin_index))
    assert "onnxruntime" in found
    assert not found & (HEAVY | {"av", "sqlite_utils"})


def test_query_by_image(builtin_index: Path) -> None:
    photo = builtin_index.parent / "photos" / "blue.png"
    assert not command("query", "--image", str(photo), "--index", str(builtin_index)) & HEAVY


def test_index(builtin_index: Path) -> None:
    photos = builtin_index.parent / "photos"
    assert not command("index", str(photos), "--index", str(builtin_index)) & (HEAVY - {"pandas"})


def test_onnxruntime_is_told_to_stay_silent_before_it_is_loaded() -> None:
    """Its native code reads the environment once, when it is loaded: the C library must know by then."""
    assert "onnxruntime" not in modules_after(
        """
import ctypes, mmsearch
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
assert libc.getenv(b"ORT_DISABLE_TELEMETRY") == b"1"
"""
    )
