"""Ray runs the pipeline: the same vectors and reasons as threads, and no file costs another its place."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmsearch.api import Index
from mmsearch.core.errors import ResourceShortage
from mmsearch.ingest import IngestOptions
from mmsearch.models.encoders import open_encoder
from mmsearch.pipeline.file_batches import FileBatches, Settings
from tests.ingest.test_archives import samples, write_tar
from tests.support.colours import COLOURS, save_colour
from tests.support.program import run_program

ROOT = Path(__file__).parents[2]
COLOUR = "tests.support.colours:ColourEncoder"
DEADLY = "tests.support.deadly:DeadlyEncoder"
OPTIONS = IngestOptions(engine="ray", readers=2)


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    library = pytest.importorskip("ray")
    deaths = tmp_path_factory.mktemp("deaths")
    variables = {"PYTHONPATH": str(ROOT), "MMSEARCH_TEST_DEATHS": str(deaths), "OMP_NUM_THREADS": "1"}
    library.init(
        "local", num_cpus=2, include_dashboard=False, object_store_memory=200_000_000, log_to_driver=False,
        configure_logging=False, runtime_env={"env_vars": variables},
    )  # fmt: skip
    try:
        yield library
    finally:
        library.shutdown()


def vectors(index: Index) -> dict[str, tuple[Any, ...]]:
    """What an index holds of each document, without numbers that depend on the order of work."""
    found: dict[str, tuple[Any, ...]] = {}
    for part in index._session.store().export():
        start = 0
        for one in part.documents:
            own = part.vectors[start : start + len(one.segments)].tobytes()
            found[one.path] = (one.hash, one.modality, one.info, one.caption, own)
            start += len(one.segments)
    return found


def reasons(report: Any) -> dict[str, str]:
    return {skip.path: skip.reason for skip in report.skipped}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own, of sockets and processes that it leaves to the system
@pytest.mark.timeout(900)
class TestOnRay:
    def test_it_makes_what_threads_make(self, ray: Any, photos: Path, tmp_path: Path) -> None:
        """Archives, captions, copies and damaged files among them; then a moved file, and a second run."""
        write_tar(photos / "samples.tar", samples())
        (photos / "sub" / "red.png.txt").write_text("a caption")
        (photos / "copy.png").write_bytes((photos / "sub" / "red.png").read_bytes())
        (photos / "words.txt").write_text("green and blue\n")
        for number in range(40):
            (photos / f"bad{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes([number]))
        with (
            Index.open(tmp_path / "threads", create=True, encoder=COLOUR) as threads,
            Index.open(tmp_path / "ray", create=True, encoder=COLOUR) as other,
        ):
            expected, made = threads.add(photos), other.add(photos, options=OPTIONS)
            assert reasons(made) == reasons(expected) and len(made.skipped) >= 40
            assert (made.indexed, made.segments) == (expected.indexed, expected.segments)
            assert vectors(other) == vectors(threads)
            (photos / "yellow.png").rename(photos / "moved.png")
            moved = other.add(photos, options=OPTIONS)
            assert (moved.indexed, moved.updated, moved.removed) == (0, 1, 0)
            assert other.add(photos, options=OPTIONS).unchanged == expected.indexed
            assert other.verify().clean

    def test_a_file_that_ends_its_process_is_found_by_name(self, ray: Any, tmp_path: Path) -> None:
        photos = tmp_path / "photos"
        for number in range(150):
            save_colour(photos / f"{number:03}.png", ("red", "green", "blue")[number % 3], seed=number)
        save_colour(photos / "077-deadly.png", "white")
        save_colour(photos / "120-once.png", "black")  # its process is killed, and another one reads it
        with Index.open(tmp_path / "index", create=True, encoder=DEADLY) as index:
            report = index.add(photos, options=OPTIONS)
            assert [Path(skip.path).name for skip in report.skipped] == ["077-deadly.png"]
            assert "ended the process" in report.skipped[0].reason
            assert report.indexed == 151
            again = index.add(photos, options=OPTIONS)
            assert (again.unchanged, len(again.skipped)) == (151, 1)

    def test_a_cluster_without_a_free_cpu_is_refused(self, ray: Any, photos: Path, tmp_path: Path) -> None:
        @ray.remote(num_cpus=2)
        class Busy:
            def here(self) -> bool:
                return True

        busy = Busy.remote()
        assert ray.get(busy.here.remote())
        with Index.open(tmp_path / "index", create=True, encoder=COLOUR) as index:
            with pytest.raises(ResourceShortage, match=r"no CPU of the Ray cluster is free.*0 of 2"):
                index.add(photos, options=OPTIONS)
            ray.kill(busy)
            assert index.add(photos, options=OPTIONS).indexed == len(COLOURS)

    def test_it_fills_a_milvus_store(self, ray: Any, photos: Path, tmp_path: Path) -> None:
        """By the command line: the process that runs the command is the only one that opens the store."""
        pytest.importorskip("pymilvus", reason="pymilvus is not installed")
        pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
        address = f"milvus:{tmp_path}/photos.db"
        command = ["index", str(photos), "--store", address, "--engine", "ray", "--model", COLOUR, "--json"]
        (photos / "bad.png").write_bytes(b"no picture")
        (photos / "copy.png").write_bytes((photos / "sub" / "red.png").read_bytes())
        reports = []
        for _ in range(2):
            written = run_program(*command).stdout
            reports.append(json.loads(written[written.index("{") :]))
        first, second = reports
        assert (first["indexed"], second["indexed"], second["unchanged"]) == (len(COLOURS) + 1, 0, len(COLOURS) + 1)
        assert [Path(skip["path"]).name for skip in first["skipped"]] == ["bad.png"]
        with (
            Index.open(address, encoder=COLOUR) as stored,
            Index.open(tmp_path / "threads", create=True, encoder=COLOUR) as threads,
        ):
            assert reasons(threads.add(photos)) == {skip["path"]: skip["reason"] for skip in first["skipped"]}
            assert vectors(stored) == vectors(threads)
            assert stored.verify(read_bytes=True).clean
            assert {Path(hit.path).name for hit in stored.search("red", k=2)} == {"red.png", "copy.png"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_standard_output_is_json_alone_where_processes_die(tmp_path: Path) -> None:
    """Ray prints what it thinks of each on standard output; a program that reads the report must not meet that."""
    pytest.importorskip("ray")
    photos = tmp_path / "photos"
    for number in range(5):
        save_colour(photos / f"{number}.png", "red", seed=number)
    save_colour(photos / "deadly.png", "white")
    arguments = ["index", photos, "--index", tmp_path / "index", "--json", "--engine", "ray", "--model", DEADLY]
    done = subprocess.run(
        [sys.executable, "-m", "mmsearch", *map(str, arguments)], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    [report] = map(json.loads, done.stdout.splitlines())
    [skipped] = report["skipped"]
    assert report["indexed"] == 5 and skipped["path"].endswith("deadly.png")
    assert "ended the process" in skipped["reason"]


def test_a_cluster_that_is_not_there_is_said(photos: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    if ray.is_initialized():
        pytest.skip("another test runs Ray in this process")
    with Index.open(tmp_path / "index", create=True, encoder=COLOUR) as index:
        with pytest.raises(ResourceShortage, match="no Ray cluster at"):
            index.add(photos, options=IngestOptions(engine="nosuchscheme://nowhere"))
        assert index.add(photos).indexed == len(COLOURS)


def open_colours() -> Any:
    return open_encoder(COLOUR)


def test_rows_of_any_engine(photos: Path) -> None:
    """As Spark's ``mapInPandas`` asks for them: settings go through pickle, files come by name."""
    (photos / "bad.png").write_bytes(b"no")
    batches = FileBatches(pickle.loads(pickle.dumps(Settings(open_colours))))
    names = [str(photos / name) for name in ("sub/red.png", "green.png", "bad.png", "none.png", "notes.xyz")]
    rows = list(batches.rows(names))
    assert [row["path"] for row in rows] == names
    assert [row["error"] is None for row in rows] == [True, True, False, False, False]
    assert len(rows[0]["vector"]) == 4 and rows[0]["modality"] == "image" and rows[0]["segment"] == 0
    assert rows[3]["error"]
