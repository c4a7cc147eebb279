"""The command line: what it prints, and its exit codes. Once as a process of its own, else in this one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from PIL import Image
from skimage import data as skimage_data

from mmsearch.core.home import locate_index
from mmsearch.filters import KEYS
from tests.support.colours import save_colour
from tests.support.program import run_program as run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An indexed folder of real photographs that scikit-image carries, with a text and a broken file."""
    folder = tmp_path_factory.mktemp("cli")
    photos = folder / "photos"
    photos.mkdir()
    for name in ("chelsea", "coffee", "rocket", "astronaut"):
        Image.fromarray(getattr(skimage_data, name)()).resize((300, 300)).save(photos / f"{name}.jpg")
    (photos / "notes.md").write_text("A cup of coffee on a table.\n\nThe rocket starts at noon.\n")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not really")
    report = json.loads(run("index", photos, "--json", home=folder).stdout)
    assert (report["schema"], report["indexed"], report["unchanged"]) == (3, 5, 0)
    assert [Path(skip["path"]).name for skip in report["skipped"]] == ["broken.jpg"]
    return folder


def test_words_find_the_photo(home: Path) -> None:
    for words, name in (("a cat", "chelsea"), ("a cup of coffee", "coffee"), ("rocket launch", "rocket")):
        lines = run("query", words, "-k", "2", home=home).stdout.splitlines()
        assert len(lines) == 2
        rank, score, path = lines[0].split("\t")
        assert (rank, Path(path).stem) == ("1", name)
        assert 0 < float(score) <= 1


def test_a_process_of_its_own_prints_and_ends_alike(home: Path) -> None:
    environment = {**os.environ, "MMSEARCH_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    environment.pop("MMSEARCH_INDEX", None)
    for words, code in (
        (["query", "a cat", "-k", "2", "-0"], 0), (["query", "path:none/*"], 1), (["query", "cat befor:2021"], 2)
    ):  # fmt: skip
        command = [sys.executable, "-m", "mmsearch", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
        same = run(*words, home=home, code=code)
        assert (done.returncode, done.stdout, done.stderr) == (code, same.stdout, same.stderr)


def test_json_lines_have_all_fields(home: Path) -> None:
    hit = json.loads(run("query", "coffee", "-k", "1", "--json", home=home).stdout)
    known = {"schema", "rank", "score", "path", "modality", "segment", "start_s", "end_s", "text"}
    assert set(hit) == known | {"relevance", "best_s", "parts", "duplicates", "read", "date", "language", "match"}
    assert 0 <= hit["relevance"] <= 1 and hit["score"] == pytest.approx(sum(hit["parts"].values()), abs=1e-5)
    assert (hit["rank"], hit["modality"], hit["segment"], hit["start_s"], hit["text"]) == (1, "image", 0, None, None)
    text = json.loads(run("query", "space", "-k", "1", "--json", "--modality", "text", home=home).stdout)
    assert (text["modality"], text["text"]) == ("text", "The rocket starts at noon.")


def test_an_image_finds_itself_and_texts(home: Path) -> None:
    photo = home / "photos" / "rocket.jpg"
    assert run("query", "--image", photo, "--paths", "-k", "1", home=home).stdout == f"{photo}\n"
    lines = run("query", "--image", photo, "--modality", "text", home=home).stdout
    assert "notes.md" in lines


def test_paths_for_pipes(home: Path) -> None:
    paths = run("query", "a cat", "-k", "3", "-0", home=home).stdout.split("\0")
    assert len(paths) == 4 and paths[-1] == "" and Path(paths[0]).stem == "chelsea"


def test_running_again_does_nothing_twice(home: Path) -> None:
    report = json.loads(run("index", home / "photos", "--json", home=home).stdout)
    assert (report["indexed"], report["unchanged"], len(report["skipped"])) == (0, 5, 1)
    lines = run("index", home / "photos", home=home).stdout
    assert lines.startswith("0 indexed, 0 updated, 5 unchanged, 0 removed, 1 skipped")
    assert "broken.jpg" in lines


def test_status_and_models(home: Path) -> None:
    status = run("status", home=home).stdout
    assert "4 images, 0 videos, 1 texts" in status and str(home / "photos") in status
    assert json.loads(run("status", "--json", home=home).stdout)["documents"]["image"] == 4
    models = run("models", home=home).stdout
    assert "* builtin" in models and "ViT-B-32/laion2b_s34b_b79k" in models


def test_remove(home: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra"
    extra.mkdir()
    Image.fromarray(skimage_data.chelsea()).save(extra / "cat.png")
    run("index", extra, home=home)
    assert run("remove", extra, home=home).stdout == "removed 1 document from the index\n"
    assert str(extra) not in run("status", home=home).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "cat", "--index", "none"], "there is no index at"),
        (["query", ""], "the query is empty"),
        (["query"], "give either a text or an image"),
        (["query", "cat", "--modality", "smell"], "no such modality: smell"),
        (["query", "--image", "nowhere.jpg"], "there is no file nowhere.jpg"),
        (["query", "cat", "--json", "--paths"], "exclude each other"),
        (["index", "nowhere"], "there is no file or folder nowhere"),
        (["remove", "/nowhere"], "nothing in the index lies at"),
        (["index", ".", "--index", "other", "--model", "ViT-B-32/laion2b_s34b_b79k"], "mmsearch models pull"),
        (["index", ".", "--index", "other", "--device", "tpu"], "no such device"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(home: Path, arguments: list[str], message: str) -> None:
    done = run(*arguments, home=home, code=2, HF_HUB_CACHE=str(home / "no-hub"))
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not locate_index(home / "other").exists() and not (home / "other").exists()


def test_nothing_found_is_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("only words")
    run("index", tmp_path / "texts", home=tmp_path)
    assert run("query", "cat", home=tmp_path, code=1).stdout == ""


def test_the_version_and_completion(home: Path) -> None:
    assert run("--version", home=home).stdout.startswith("mmsearch 0.")
    assert "--show-completion" in run("--help", home=home).stdout


def test_an_empty_folder_says_so(home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    save_colour(tmp_path / "empty" / ".hidden.png", "red")
    done = run("index", tmp_path / "empty", "--index", "of-nothing", home=home)
    assert f"{tmp_path / 'empty'} holds no photo, video, recording or text" in done.stderr
    assert "0 indexed" in done.stdout
    assert "holds no photo" not in run("index", home / "photos", home=home).stderr


@pytest.mark.parametrize(
    ("word", "meant"),
    [("search", "query"), ("serch", "query"), ("qeury", "query"), ("rm", "remove"), ("stats", "status")],
)
def test_a_command_that_does_not_exist_names_the_one_that_is_meant(word: str, meant: str) -> None:
    for words in ((word, "x"), ("help", word)):
        assert re.search(f"did you mean .(mmsearch )?{meant}.\\?", run(*words, code=2).stderr, re.IGNORECASE)


def test_help_explains_commands_and_the_query_language() -> None:
    assert "Usage: mmsearch [OPTIONS] COMMAND" in run("help").stdout
    assert run("help", "status").stdout == run("status", "--help").stdout
    assert "Usage: mmsearch models pull" in run("help", "models", "pull").stdout
    assert "`mmsearch status` has no command x" in run("help", "status", "x", code=2).stderr
    filters = run("help", "filters").stdout
    assert filters in run("help", "query").stdout
    for key in KEYS:
        assert f"  {KEYS[key].example} " in filters, key
    assert max(map(len, filters.splitlines())) <= 80


def test_a_run_fits_a_screen_of_80_columns(home: Path, tmp_path: Path) -> None:
    """Progress and summary, on a terminal as it is."""
    for number in range(40):
        save_colour(tmp_path / "photos" / f"{number}.png", "red", (400, 300), seed=number)
    for number in range(12):
        (tmp_path / "photos" / f"a-file-with-a-long-name-that-is-broken-{number}.jpg").write_bytes(b"\xff\xd8 no")
    lines = on_a_terminal("index", str(tmp_path / "photos"), "--index", "wide", home=home)
    assert any("indexing" in line for line in lines) and any("40 indexed" in line for line in lines)
    drawn = [line for line in lines if "━" in line]
    assert drawn and max(map(len, drawn)) <= 80
    summary = [line for line in lines if "━" not in line]
    assert sum(-(-len(line) // 80) for line in summary) < 24 and len(summary[0]) <= 80


def on_a_terminal(*words: str, home: Path) -> list[str]:
    """The lines that a terminal of 80 columns and 24 rows gets, those that are written over too, without colours."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ |= {"MMSEARCH_HOME": str(home), "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
        os.execv(sys.executable, [sys.executable, "-m", "mmsearch", *words])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    written = b""
    with contextlib.suppress(OSError):  # so it ends on Linux
        while part := os.read(terminal, 65536):
            written += part
    os.close(terminal)
    assert os.waitpid(child, 0)[1] == 0, written
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", lambda found: "" if found[0].endswith("m") else "\r", written.decode())
    return [line.rstrip() for line in re.split(r"[\r\n]+", plain) if line.strip()]
