"""What the machine, the disk and other programs do to a command: one sentence, exit code 2, and nothing is lost.

Each situation is a real one: a process of its own with the limits of the system set for it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from mmsearch.api import Index

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the limits and devices of Linux"),
]

_DROP_CAPABILITY = 24
"""PR_CAPBSET_DROP of prctl(2)."""
LONG = "x" * 300
IMAGES = 8


class Run(NamedTuple):
    code: int
    out: str
    err: str


def save_photos(folder: Path, count: int, seed: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed)
    for number in range(count):
        noise = pixels.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((64, 48)).save(folder / f"p{number:02}.jpg")
    return folder


def run(
    *words: object, limits: Sequence[tuple[int, int]] = (), as_user: bool = False, shell: str = "", **environment: str
) -> Run:
    """``as_user``: without what lets root read and write everything. ``shell``: a command line after the program."""

    def prepare() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for what, most in limits:
            resource.setrlimit(what, (most, most))
        if as_user:
            for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
                ctypes.CDLL(None).prctl(_DROP_CAPABILITY, capability, 0, 0, 0)

    program = [sys.executable, "-m", "mmsearch"]
    command = ["bash", "-c", f"{' '.join(program)} {shell}"] if shell else [*program, *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, timeout=120, check=False, preexec_fn=prepare, env={**os.environ, **environment}
    )
    return Run(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``photos`` and ``more`` photos, and beside it in ``kept`` an ``index`` of the former."""
    place = tmp_path_factory.mktemp("made")
    save_photos(place / "photos", IMAGES, 1)
    save_photos(place / "more", IMAGES, 2)
    assert run("index", place / "photos", "--index", tmp_path_factory.mktemp("kept") / "index").code == 0
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """The same, of a test's own."""
    for name in ("photos", "more"):
        (tmp_path / name).symlink_to(made / name)
    shutil.copytree(made.parent / "kept0" / "index", tmp_path / "index")
    return tmp_path


def check_said(found: Run, *words: str) -> None:
    """One sentence on the error stream, exit code 2."""
    assert "Traceback" not in found.err, found.err
    assert found.code == 2, found
    lines = [line for line in found.err.splitlines() if line.startswith("mmsearch: ")]
    assert len(lines) == 1, found.err
    assert "index again" not in found.err, "the index is whole, or can be mended"
    for word in words:
        assert word in found.err, found.err


def check_kept(place: Path) -> None:
    """Nothing is lost, nothing is skipped for good, and the same command goes on."""
    with Index.open(place / "index") as index:
        index.verify(mend=True)
        again = index.add([place / "photos", place / "more"])
        assert not again.skipped
        assert index.status()["documents"]["image"] == 2 * IMAGES
        assert index.verify().clean


def unreadable(name: str) -> Callable[[Path], None]:
    return lambda place: [part.chmod(0) for part in (place / "index").glob(name)] and None


def replaced(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda place: (place / "index" / name).write_bytes(content) and None


def as_folder(name: str) -> Callable[[Path], None]:
    def put(place: Path) -> None:
        (place / name).mkdir()
        (place / name).chmod(0o555)

    return put


FILE, OPEN, MEMORY = resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_AS
INDEX = ("index", "{}/more", "--index", "{}/index")
QUERY = ("query", "red", "--index", "{}/index")


class Situation(NamedTuple):
    words: Sequence[str]
    said: Sequence[str] = ()
    limits: Sequence[tuple[int, int]] = ()
    before: Callable[[Path], Any] = lambda _: None
    as_user: bool = False
    shell: str = ""
    environment: dict[str, str] = {}


SITUATIONS = {
    "files may not grow: index": Situation(INDEX, ["disk"], [(FILE, 1000)]),
    "files may not grow: vectors": Situation(INDEX, ["disk"], [(FILE, 40_000)]),
    "files may not grow: query": Situation(QUERY, ["catalogue"], [(FILE, 0)]),
    "files may not grow: backup": Situation(("backup", "{}/copy", "--index", "{}/index"), [], [(FILE, 40_000)]),
    "files may not grow: contact sheet": Situation((*QUERY, "--sheet", "{}/sheet.png"), ["sheet"], [(FILE, 33_000)]),
    "files may not grow: tokens": Situation(
        ("index", "{}/photos", "--keep-tokens", "--index", "{}/index"), ["disk"], [(FILE, 9_000)]
    ),
    "files may not grow: optimize": Situation(
        ("optimize", "--recipe", "ivf_flat", "--index", "{}/index"), [], [(FILE, 1000)]
    ),
    "files may not grow: remove": Situation(("remove", "{}/photos", "--index", "{}/index"), [], [(FILE, 1000)]),
    "files may not grow: verify": Situation(("verify", "--mend", "--index", "{}/index"), [], [(FILE, 1000)]),
    "8 descriptors: index": Situation(INDEX, ["too many"], [(OPEN, 8)]),
    "8 descriptors: query": Situation(QUERY, ["too many"], [(OPEN, 8)]),
    "11 descriptors: index": Situation(INDEX, ["too many"], [(OPEN, 11)]),
    "480 MB of memory: index": Situation(INDEX, ["memory"], [(MEMORY, 480 << 20)]),
    "a read-only index: index": Situation(
        INDEX, ["permission"], before=lambda at: (at / "index").chmod(0o555), as_user=True
    ),
    "a read-only place: new index": Situation(
        ("index", "{}/photos", "--index", "{}/fixed/new"), ["permission"], before=as_folder("fixed"), as_user=True
    ),
    "a read-only place: backup": Situation(
        ("backup", "{}/fixed/copy", "--index", "{}/index"), ["permission"], before=as_folder("fixed"), as_user=True
    ),
    "a read-only place: contact sheet": Situation(
        (*QUERY, "--sheet", "{}/fixed/sheet.png"), ["ermission"], before=as_folder("fixed"), as_user=True
    ),
    "an unreadable index": Situation(QUERY, ["permission"], before=lambda at: (at / "index").chmod(0), as_user=True),
    "an unreadable manifest": Situation(QUERY, ["permission"], before=unreadable("manifest.json"), as_user=True),
    "an unreadable catalogue": Situation(QUERY, ["no access"], before=unreadable("catalogue.sqlite"), as_user=True),
    "unreadable vectors: query": Situation(QUERY, ["permission"], before=unreadable("vectors*"), as_user=True),
    "unreadable vectors: index": Situation(INDEX, ["permission"], before=unreadable("vectors*"), as_user=True),
    "unreadable vectors: verify": Situation(
        ("verify", "--index", "{}/index"), ["permission"], before=unreadable("vectors*"), as_user=True
    ),
    "vectors are gone": Situation(
        QUERY, ["verify --mend"], before=lambda at: [one.unlink() for one in (at / "index").glob("vectors*")]
    ),
    "a name that is too long: index": Situation(("index", "{}/photos", "--index", "{}/" + LONG), ["too long"]),
    "a name that is too long: query": Situation(("query", "red", "--index", LONG), ["too long"]),
    "a name that is too long: picture": Situation((*QUERY, "--image", "{}/" + LONG + ".jpg"), ["too long"]),
    "a name that is too long: queries": Situation(
        ("query", "--queries", "{}/" + LONG, "--index", "{}/index"), ["too long"]
    ),
    "a name that is too long: backup": Situation(("backup", "{}/" + LONG, "--index", "{}/index"), ["too long"]),
    "a name that is too long: import": Situation(
        ("import", "{}/" + LONG, "--model", "builtin", "--index", "{}/index"), ["too long"]
    ),
    "a path pattern of a megabyte": Situation(
        ("query", "--queries", "{}/long.txt", "--index", "{}/index"),
        ["4,096"],
        before=lambda at: (at / "long.txt").write_text("path:" + "*a" * 500_000),
    ),
    "queries without an end": Situation(("query", "--queries", "/dev/zero", "--index", "{}/index"), ["characters"]),
    "a query that is not Unicode": Situation(("query", "\udcff cat", "--index", "{}/index"), ["Unicode"]),
    "no standard input": Situation((), ["no queries"], shell="query --queries - --index {}/index <&-"),
    "the output is full": Situation((), ["output"], shell="status --json --index {}/index >/dev/full"),
    "the output is full after indexing": Situation((), ["output"], shell="index {}/photos --index {}/index >/dev/full"),
    "the home is a file": Situation(
        ("index", "{}/photos"), ["not a folder"], environment={"MMSEARCH_HOME": "/etc/passwd"}
    ),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_one_sentence_and_nothing_lost(place: Path, name: str) -> None:
    at = SITUATIONS[name]
    at.before(place)
    found = run(
        *(word.replace("{}", str(place)) for word in at.words),
        limits=at.limits, as_user=at.as_user, shell=at.shell.replace("{}", str(place)), **at.environment,
    )  # fmt: skip
    check_said(found, *at.said)
    (place / "index").chmod(0o755)
    for part in (place / "index").iterdir():
        part.chmod(0o644)
    check_kept(place)


@pytest.mark.parametrize(
    ("shell", "code"),
    [
        ("query red --json --index {}/index | head -c 1", 0),
        ("--help | true", 0),
        ("index {}/photos --index {}/index | true", 0),
        ("query red -k1 --index {}/index >&-", 0),
        ("index {}/photos --index {}/index <&- >&- 2>&-", 0),
        ("query red --index /nowhere <&- >&- 2>&-", 2),
    ],
)
def test_a_stream_that_is_closed_is_no_failure(place: Path, shell: str, code: int) -> None:
    found = run(shell="; ".join([shell.replace("{}", str(place)), f"echo ${{PIPESTATUS[0]}} > {place}/code"]))
    assert int((place / "code").read_text()) == code
    assert not found.err


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\0" * 100, None], ids=str)
def test_a_lost_manifest_is_read_from_the_catalogue(place: Path, content: bytes | None) -> None:
    path = place / "index" / "manifest.json"
    before = path.read_bytes()
    path.unlink() if content is None else path.write_bytes(content)
    asked = ("query", "red", "-k1", "--paths", "--index", place / "index")
    assert run(*asked).out
    assert "manifest" in run("verify", "--index", place / "index").out
    check_kept(place)
    assert path.read_bytes()[:200] == before[:200]


@pytest.mark.parametrize("query", [["after:2001"] * 1000, [f"-path:a{i}/*" for i in range(1500)]], ids=["and", "not"])
def test_a_thousand_filters(place: Path, query: list[str]) -> None:
    found = run("query", *query, "--paths", "-k", 100, "--index", place / "index")
    assert (found.code, found.err) == (0, "")
    assert len(found.out.splitlines()) == IMAGES


def test_letters_that_the_terminal_cannot_say(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fötos-猫"
    shutil.copytree(made / "photos", folder)
    for environment in ({"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}):
        place = tmp_path / "index"
        assert run("index", folder, "--index", place, **environment).code == 0
        found = run("query", "red", "--json", "-k1", "--index", place, **environment)
        assert (found.code, found.err) == (0, "")
        assert "fötos-猫" in found.out.encode().decode("unicode_escape") or "fötos-猫" in found.out
