"""`mmsearch switch` at the command line: from the built-in encoder to an open_clip model and back.

All in this process: torch is imported once instead of at each of ten commands.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmsearch import Index
from mmsearch.cli import app
from mmsearch.core.errors import EncoderMismatch
from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS, BuiltinEncoder
from tests.models.encoders.test_open_clip import CLIP, save_model
from tests.support.colours import save_colour


@pytest.mark.slow
def test_switching_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MMSEARCH_INDEX", raising=False)

    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, [*words], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done.stdout

    photos = tmp_path / "photos"
    for number, colour in enumerate(("red", "green", "blue")):
        save_colour(photos / f"{colour}.png", colour, seed=number)
    (photos / "notes.md").write_text("A red car.\n\nA green tree.\n")
    model = f"local-dir:{save_model(tmp_path / 'model', CLIP)}"
    run("index", str(photos))
    first = run("query", "red", "--json")

    (photos / "blue.png").rename(tmp_path / "away.png")
    said = run("switch", model, code=1)
    assert "builtin goes on answering" in said and "--leave-out" in said and "it is no longer there" in said
    assert "covers 3 of 4 documents (75 %), 1 could not be read" in run("status")
    assert run("query", "red", "--json") == first
    done = json.loads(run("switch", model, "--json", code=1))
    assert (done["answers"], done["documents"], done["covered"]) == (False, 4, 3)
    assert [Path(one["path"]).name for one in done["left_out"]] == ["blue.png"]

    (tmp_path / "away.png").rename(photos / "blue.png")
    done = json.loads(run("switch", model, "--json"))
    assert (done["answers"], done["before"], done["segments"], done["coverage"]) == (True, "builtin", 1, 1.0)
    models = json.loads(run("status", "--json"))["models"]
    assert [(one["model"], one["answers"], one["coverage"]) for one in models] == [
        ("builtin", False, 1.0),
        (model, True, 1.0),
    ]
    second = run("query", "red", "--json")
    assert len(second.splitlines()) == len(first.splitlines()) and second != first
    assert json.loads(run("verify", "--json"))["clean"]
    with pytest.raises(EncoderMismatch, match=rf"builtin.*{tmp_path / 'model'}|{tmp_path / 'model'}.*builtin"):
        run("index", str(photos), "--model", "builtin")

    said = run("switch", "builtin", "--drop-others")
    assert "0 vectors made" in said and f"builtin answers; before, {model} did" in said
    assert f"gave back the space of {model}" in said
    assert run("query", "red", "--json") == first


def test_vectors_of_earlier_weights_are_not_offered_by_the_name_of_the_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MMSEARCH_INDEX", raising=False)
    earlier = tmp_path / "earlier"
    shutil.copytree(SHIPPED_WEIGHTS, earlier)
    fields = json.loads((earlier / "encoder.json").read_text())
    fields["image"]["zoom"] = 1.0
    (earlier / "encoder.json").write_text(json.dumps(fields))
    save_colour(tmp_path / "photos" / "red.png", "red")
    place = str(tmp_path / "index")
    with Index.open(place, create=True, encoder=BuiltinEncoder(earlier)) as index:
        index.add(tmp_path / "photos")
        index.switch("builtin")

    def run(*words: str) -> str:
        return CliRunner().invoke(app, [*words, "--index", place], catch_exceptions=False).stdout

    [line] = [line for line in run("status").splitlines() if line.startswith("model ")]
    assert "zoom 1" in line and "covers 1 of 1 document (100 %); no longer in use" in line
    assert "`mmsearch switch builtin --drop-others` gives back its space" in line
    assert "gave back the space of builtin" in run("switch", "builtin", "--drop-others")
    assert "model " not in run("status")
