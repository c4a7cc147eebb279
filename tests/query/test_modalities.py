"""A modality that mmsearch does not know of itself: found, listed and counted where it is described, and no trouble
in an index that is opened where it is not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmsearch.api import Index
from mmsearch.core.errors import UsageError
from mmsearch.core.modalities import MODALITIES, ModalitySpec
from mmsearch.query.language import complete
from mmsearch.store.local.catalogue import row_owners
from tests.support.colours import COLOURS, ColourEncoder

SMELL = ModalitySpec("smell", "smells")
SKETCH = ModalitySpec("sketch", "sketches", "visual")


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes modalities known, or knows mmsearch's own alone again."""

    def describe(*specs: ModalitySpec) -> None:
        rows = {name: MODALITIES._rows[name] for name in ("image", "video", "text")}
        monkeypatch.setattr(MODALITIES, "_rows", {**rows, **{spec.name: spec for spec in specs}})
        monkeypatch.setattr(MODALITIES, "_loaded", {})

    return describe


@pytest.fixture
def place(tmp_path: Path, described: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index with a document of each modality in each colour."""
    monkeypatch.setattr(row_owners, "BLOCK", 4)
    described(SMELL, SKETCH)
    rows = [
        {"path": f"{kind}/{colour}", "modality": kind, **({"text": f"it is {colour}"} if kind == "smell" else {})}
        for colour in COLOURS for kind in ("image", "text", "smell", "sketch")
    ]  # fmt: skip
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add_embeddings(ColourEncoder().encode_texts([row["path"].partition("/")[2] for row in rows]), rows)
    return tmp_path / "index"


def found(index: Index, query: str, **options: Any) -> list[str]:
    return [hit.path for hit in index.search(query, words=False, **{"k": 99, **options})]


def kinds(index: Index, query: str, **options: Any) -> set[str]:
    return {path.partition("/")[0] for path in found(index, query, **options)}


def test_a_described_modality_is_found_as_it_says(place: Path) -> None:
    with Index.open(place, encoder=ColourEncoder()) as index:
        assert kinds(index, "red") == {"image", "sketch"}, "what is visual is found by default"
        assert found(index, "type:smell red", k=1) == ["smell/red"]
        assert found(index, "red", modality="smell", k=1) == ["smell/red"]
        assert kinds(index, "red type:smell,text") == {"smell", "text"}
        assert kinds(index, "-type:smell") == {"image", "text", "sketch"}, "a listing has all"
        assert kinds(index, "type:sketch") == {"sketch"}
        [hit] = index.search("red type:smell", k=1)
        assert (hit.modality, hit.text) == ("smell", "it is red")
        documents = index.status()["documents"]
        assert {kind: documents[kind] for kind in ("image", "video", "smell", "sketch")} == {
            "image": 8, "video": 0, "smell": 8, "sketch": 8,
        }  # fmt: skip
        assert complete("type:s") == ["type:smell", "type:sketch"]
        assert index.verify().documents == 32 and index.verify().clean


def test_an_index_with_it_opens_where_nobody_describes_it(place: Path, described: Any) -> None:
    described()
    with Index.open(place, encoder=ColourEncoder()) as index:
        assert kinds(index, "red") == {"image"}
        assert kinds(index, "-type:text") == {"image", "smell", "sketch"}, "still there, in listings"
        with pytest.raises(UsageError, match='unknown type "smell"; expected image, video, text'):
            index.search("type:smell red")
        with pytest.raises(UsageError, match="no such modality: smell"):
            index.search("red", modality="smell")
        assert index.status()["documents"]["smell"] == 8
        assert index.verify().clean
        index.add_embeddings(ColourEncoder().encode_texts(["red"]), [{"path": "image/2", "modality": "image"}])
        assert "image/2" in found(index, "red", k=2)
        with pytest.raises(UsageError, match="a modality out of image, video, text"):
            index.add_embeddings(ColourEncoder().encode_texts(["red"]), [{"path": "x", "modality": "smell"}])
    described(SKETCH, SMELL)  # in another order, later
    with Index.open(place, encoder=ColourEncoder()) as index:
        assert found(index, "type:smell red", k=1) == ["smell/red"]
        assert found(index, "type:sketch red", k=1) == ["sketch/red"]
