"""`verify`, `import` and `index --watch` as programs: what they print, and their exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmsearch.cli.bars import Pace
from tests.support.colours import save_colour
from tests.support.program import run_program as run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli-ingest")
    for number, colour in enumerate(("red", "blue", "green")):
        save_colour(folder / "photos" / f"{colour}.png", colour, (300, 300), seed=number)
    report = json.loads(run("index", folder / "photos", "--json", home=folder).stdout)
    assert report["indexed"] == 3
    assert report["limited_by"] in {"walk", "decode", "encode", "commit"}
    return folder


def test_verify_says_what_differs_and_mends_it(home: Path) -> None:
    assert "3 documents, 3 vectors, 3 files compared: all agree" in run("verify", home=home).stdout
    new = save_colour(home / "photos" / "new.png", "white", (300, 300))
    shown = run("verify", home=home, code=1).stdout
    assert "new file: 1" in shown and str(new) in shown and "--mend" in shown
    line = json.loads(run("verify", "--json", home=home, code=1).stdout)
    assert (line["clean"], [one["kind"] for one in line["differences"]]) == (False, ["new file"])
    assert json.loads(run("verify", "--mend", "--bytes", "--json", home=home).stdout)["documents"] == 4


def test_import_needs_a_model_and_a_folder_that_fits(home: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="reading parquet takes pyarrow")
    from pyarrow import parquet

    assert "no folder of clip-retrieval" in run("import", tmp_path, "--model", "builtin", home=home, code=2).stderr
    assert "--model" in run("import", tmp_path, home=home, code=2).stderr
    for name in ("img_emb", "metadata"):
        (tmp_path / "laion" / name).mkdir(parents=True)
    np.save(tmp_path / "laion" / "img_emb" / "img_emb_0.npy", np.eye(2, 7, dtype=np.float32))
    table = pyarrow.table({"image_path": ["a.jpg", "b.jpg"], "caption": ["first", "second"]})
    parquet.write_table(table, tmp_path / "laion" / "metadata" / "metadata_0.parquet")
    assert "(2, 7)" in run("import", tmp_path / "laion", "--model", "builtin", home=home, code=2).stderr
    dim = json.loads(run("status", "--json", home=home).stdout)["encoder"].split("(")[1].split("-d")[0]
    np.save(tmp_path / "laion" / "img_emb" / "img_emb_0.npy", np.eye(2, int(dim), dtype=np.float32))
    arguments = ("import", tmp_path / "laion", "--model", "builtin", "--index", "laion", "--json")
    assert json.loads(run(*arguments, home=home).stdout)["indexed"] == 2
    assert json.loads(run(*arguments, home=home).stdout)["unchanged"] == 2
    assert "removed 2 documents" in run("remove", "dataset:laion", "--index", "laion", home=home).stdout


def test_export_and_import_as_parquet(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet takes pyarrow")
    line = json.loads(run("export", "type:image", "--parquet", tmp_path / "out", "--json", home=home).stdout)
    assert line["documents"] == line["segments"] >= 3 and line["files"] == 1
    assert "new or empty" in run("export", "--parquet", tmp_path / "out", home=home, code=2).stderr
    assert "either" in run("import", home=home, code=2).stderr
    copied = json.loads(run("import", "--parquet", tmp_path / "out", "--index", "copy", "--json", home=home).stdout)
    assert copied["indexed"] == line["documents"]
    asked = ("query", "red", "-k", "3", "--paths")
    assert run(*asked, home=home).stdout == run(*asked, "--index", "copy", home=home).stdout


@pytest.mark.skipif(os.name != "posix", reason="needs SIGINT")
def test_watching_ends_with_ctrl_c(home: Path, tmp_path: Path) -> None:
    save_colour(tmp_path / "photos" / "red.png", "red", (300, 300))
    environment = {**os.environ, "MMSEARCH_HOME": str(home), "MMSEARCH_INDEX": str(tmp_path / "index")}
    process = subprocess.Popen(
        [sys.executable, "-m", "mmsearch", "index", str(tmp_path / "photos"), "--watch", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["indexed"] == 1
    save_colour(tmp_path / "photos" / "blue.png", "blue", (300, 300))
    assert json.loads(process.stdout.readline())["indexed"] == 1
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in errors) == (0, False)


def test_the_pace_is_that_of_the_last_half_minute() -> None:
    """Batches of 8 files, two a second, after 5,000 that had not changed; then a slow stretch."""
    pace = Pace()
    assert pace.describe(5000, 6000, 0.0) == ""
    told = [pace.describe(5000 + 8 * int(2 * now), 6000, now) for now in (0.2, 0.5, 0.75, 1.0, 5.0, 10.0)]
    assert told[:3] == ["", "", ""]
    assert told[3] == "16.0 files/s  0:01:02 left"
    assert told[5] == "16.0 files/s  0:00:52 left"
    for now in range(11, 60):
        last = pace.describe(5160 + now, 9000, float(now))
    assert last.startswith("1.0 files/s  1:03:0")
    assert Pace().describe(3, None, 0.0) == ""
