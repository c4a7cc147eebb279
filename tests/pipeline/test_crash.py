"""``kill -9`` while indexing: what was committed stays, nothing comes twice, the same call finishes the job."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmsearch.api import Index
from mmsearch.store.local.directory import IndexDirectory
from tests.support.colours import COLOURS, ColourEncoder, save_colour

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")

PHOTOS = 240
INDEXING = """
import sys
from pathlib import Path
from mmsearch.api import Index
from mmsearch.store.local.catalogue import Catalogue
from mmsearch.store.local.directory import Manifest
from mmsearch.pipeline import fill
from mmsearch.pipeline.new_files import NewFiles
from mmsearch.store.local.files.vectors import VectorFile
from tests.support.colours import ColourEncoder, die_at

photos, place, moment = sys.argv[1:]
fill.COMMIT_SECONDS, fill.COMMIT_SHARE = 0.01, 1.0  # as many moments to hit as can be had
owners = {"append": VectorFile, "set_row_count": Catalogue, "put_document": Catalogue, "write": Manifest,
          "committed": NewFiles, "transaction": Catalogue, "drop_unused_contents": Catalogue}

if moment:
    when, name, call = moment.split()
    die_at(owners[name], name, when, int(call))

said = []

def say(progress):
    if progress.stage == "index" and not said:
        said.append(print("indexing", flush=True))

with Index.open(place, create=True, encoder=ColourEncoder()) as index:
    index.add(photos, progress=say)
"""


@pytest.fixture(scope="module")
def many_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many") / "photos"
    for number in range(PHOTOS):
        save_colour(folder / f"{number:03d}.png", list(COLOURS)[number % len(COLOURS)], seed=number)
    return folder


@pytest.fixture(scope="module")
def undisturbed(many_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    place = tmp_path_factory.mktemp("undisturbed") / "index"
    with Index.open(place, create=True, encoder=ColourEncoder()) as index:
        assert index.add(many_photos).indexed == PHOTOS
    return committed(place)


def start(photos: Path, place: Path, moment: str = "") -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", INDEXING, str(photos), str(place), moment],
        cwd=root, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip


def committed(place: Path) -> dict[str, bytes]:
    """Path → its vector's bytes, of every committed document; fails when anything is there twice."""
    if not IndexDirectory.exists(place):
        return {}
    index = IndexDirectory.open(place)
    try:
        space = index.space()
        matrix = index.matrix(space)
        found = index.catalogue.find_rows(space.id, range(space.row_count))
        documents = [
            known.path for root in index.catalogue.roots() for known in index.catalogue.documents_below(root.id)
        ]
    finally:
        index.close()
    assert sorted(documents) == sorted(segment.path for segment in found), "a document without its vector"
    assert not [path for path, times in Counter(documents).items() if times > 1], "a document twice"
    assert len({segment.row for segment in found}) == len(found) == space.row_count, "a row shared or unused"
    return {segment.path: matrix[segment.row].tobytes() for segment in found}


def assert_kept(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    assert {path: after.get(path) for path in before} == before


def assert_equal_within_half_precision(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    assert one.keys() == other.keys()
    for path, vector in one.items():
        expected = np.frombuffer(vector, np.float16).astype(np.float32)
        np.testing.assert_allclose(np.frombuffer(other[path], np.float16).astype(np.float32), expected, atol=1e-3)


@pytest.mark.slow
def test_killed_at_random_moments(many_photos: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    place, chance, before, kills = tmp_path / "index", random.Random(5), {}, 0
    for _ in range(6):
        process = start(many_photos, place)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0, 0.08))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()
        after = committed(place)
        assert_kept(before, after)
        before = after
    assert kills >= 2, "the runs ended before their kill"
    with Index.open(place, encoder=ColourEncoder()) as index:
        report = index.add(many_photos)
    assert report.unchanged == len(before)  # what was committed is not read again
    assert_kept(before, committed(place))
    assert_equal_within_half_precision(undisturbed, committed(place))


@pytest.mark.parametrize(
    "moment",
    [
        "before write 1",  # the catalogue of a new index exists, its manifest does not
        "after append 2",  # vectors on disk, not committed
        "before set_row_count 2",  # inside the transaction
        "after put_document 9",
        "before committed 2",  # committed, not yet counted
        "before drop_unused_contents 1",  # all committed, not yet cleaned up
    ],
)
def test_killed_at_the_worst_moments(
    many_photos: Path, undisturbed: dict[str, bytes], tmp_path: Path, moment: str
) -> None:
    place = tmp_path / "index"
    process = start(many_photos, place, moment)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL, "the moment was never reached"
    before = committed(place)
    with Index.open(place, create=True, encoder=ColourEncoder()) as index:
        report = index.add(many_photos)
    assert (report.indexed, report.unchanged) == (PHOTOS - len(before), len(before))
    assert_kept(before, committed(place))
    assert_equal_within_half_precision(undisturbed, committed(place))
    file = next(place.glob("vectors-*.f16"))
    assert file.stat().st_size == PHOTOS * 4 * 2  # (rows, 4 values, 2 bytes): left-overs were cut or overwritten
