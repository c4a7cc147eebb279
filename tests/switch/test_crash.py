"""``kill -9`` while another model is filled in: the first goes on answering, and the same call finishes the job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmsearch.api import Index
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.switch import SwitchOptions
from tests.pipeline.test_crash import PHOTOS, committed, many_photos  # noqa: F401  (a fixture)
from tests.support.colours import COLOURS, ColourEncoder
from tests.switch.test_switch import OtherEncoder

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")


SWITCHING = """
import sys
from mmsearch.api import Index
from mmsearch.store.local.catalogue import Catalogue
from mmsearch.store.local.directory import IndexDirectory, Manifest
from mmsearch.pipeline import fill
from mmsearch.pipeline.artefacts import VectorsOfContents
from mmsearch.switch import SwitchOptions, run
from mmsearch.store.local.files.vectors import VectorFile
from tests.support.colours import ColourEncoder, die_at
from tests.switch.test_switch import OtherEncoder

place, moment = sys.argv[1:]
fill.COMMIT_SECONDS, VectorsOfContents.commit_rows = 0.01, 16
owners = {"append": VectorFile, "set_row_count": Catalogue, "add_space": Catalogue, "with_manifest": IndexDirectory,
          "write": Manifest, "drop_space": run}
when, name, call = moment.split()
die_at(owners[name], name, when, int(call))
with Index.open(place, encoder=ColourEncoder()) as index:
    index.switch(OtherEncoder(), options=SwitchOptions(drop_others=True))
"""


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("after add_space 1", marks=pytest.mark.slow),
        "after append 2",  # vectors on disk, not committed
        "before set_row_count 2",  # inside the transaction
        pytest.param("after set_row_count 3", marks=pytest.mark.slow),
        pytest.param("before with_manifest 1", marks=pytest.mark.slow),  # complete, not yet switched
        pytest.param("before write 1", marks=pytest.mark.slow),
        "after write 1",  # switched, what the other one had built is still there
        pytest.param("before drop_space 1", marks=pytest.mark.slow),
        "after drop_space 1",  # in the transaction
    ],
)
def test_a_switch_killed_at_the_worst_moments_goes_on(
    many_photos: Path,  # noqa: F811
    tmp_path: Path,
    moment: str,
) -> None:
    place, root = tmp_path / "index", Path(__file__).parents[2]
    with Index.open(place, create=True, encoder=ColourEncoder()) as index:
        index.add(many_photos)
    before = committed(place)
    process = subprocess.run(
        [sys.executable, "-c", SWITCHING, str(place), moment],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, timeout=100, check=False,
    )  # fmt: skip
    assert process.returncode == -signal.SIGKILL, "the moment was never reached"
    directory = IndexDirectory.open(place)
    answering = directory.manifest.model
    directory.close()
    assert answering == ("others" if moment == "after write 1" or "drop" in moment else "colours")
    if answering == "colours":
        assert committed(place) == before, "the first model answers as if nothing had been"
    encoder = OtherEncoder()
    with Index.open(place, encoder=ColourEncoder() if answering == "colours" else encoder) as index:
        assert {one.kind for one in index.verify().differences} <= {"uncommitted bytes"}
        report = index.switch(encoder, options=SwitchOptions(drop_others=True))
        assert (report.answers, report.coverage.covered) == (True, PHOTOS)
        assert index.verify(mend=True).clean
        assert [one["model"] for one in index.status()["models"]] == ["others"]
    after = committed(place)
    assert after.keys() == before.keys()
    for path, vector in after.items():
        colour = list(COLOURS)[int(Path(path).stem) % len(COLOURS)]
        expected = encoder.encode_prepared(np.full((1, 8, 8, 3), COLOURS[colour]))[0]
        assert np.frombuffer(vector, np.float16).astype(np.float32) @ expected > 0.99
