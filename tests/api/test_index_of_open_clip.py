"""An index made with an open_clip model from a local directory: indexed, queried, reopened with another encoder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmsearch.api import Index
from mmsearch.core.errors import EncoderMismatch
from tests.models.encoders.test_open_clip import CLIP, save_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "one", CLIP)
    save_model(folder / "two", {**CLIP, "embed_dim": 16})
    return folder


def test_index_query_and_reopen_with_another_encoder(
    models: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "index"
    with Index.open(place, create=True, encoder=f"local-dir:{models / 'one'}") as index:
        assert index.add(photos).indexed == 8
        best = index.search(image=photos / "green.png", k=1)[0]
        assert (Path(best.path).name, best.score > 0.99) == ("green.png", True)
        words = index.search("a photo of something red", k=8)
        assert len(words) == 8
    with Index.open(place) as again:
        same = again.search("a photo of something red", k=8)
        assert [hit.path for hit in same] == [hit.path for hit in words]
    for other in ("builtin", f"local-dir:{models / 'two'}"):
        with pytest.raises(EncoderMismatch) as caught:
            Index.open(place, encoder=other)
        assert str(models / "one") in str(caught.value) and other.split(":")[-1] in str(caught.value)


@pytest.mark.slow
def test_a_text_query_of_such_an_index_needs_no_torch(
    models: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path / "cache"))
    with Index.open(tmp_path / "index", create=True, encoder=f"local-dir:{models / 'one'}") as index:
        index.add(photos)
    program = (
        "import json, sys; from mmsearch import Index\n"
        f"with Index.open({str(tmp_path / 'index')!r}) as index: hits = index.search('red')\n"
        "print(json.dumps([len(hits), [name for name in ('torch', 'open_clip') if name in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    assert json.loads(done.stdout) == [8, []]
