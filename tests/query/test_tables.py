"""Hits as tables have the values of the hits, whatever is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmsearch import Index, MmsearchError
from mmsearch.core.types import DocumentInfo, Hit, MediaInfo
from mmsearch.query.nothing import Hits
from mmsearch.query.tables import COLUMNS
from tests.support.colours import ColourEncoder, save_colour

DOCUMENT = DocumentInfo(3, "/a.jpg", "image", 9, 1, "2020-01-01", MediaInfo(40, 30, camera="X", latitude=1.5, rating=0))
HITS = Hits([
    Hit(1, 0.5, "/a.jpg", "image", 0, relevance=0.9, parts={"similarity": 0.25}, duplicates=("/b.jpg",),
        document=DOCUMENT),
    Hit(2, 0.4, "/c.mp4", "video", 1, 1.0, 2.0, best_s=1.5, match=False),
])  # fmt: skip


def test_a_table_of_arrow() -> None:
    pa = pytest.importorskip("pyarrow")
    table = HITS.to_arrow()
    first, second = table.to_pylist()
    assert (first["path"], first["similarity"], first["duplicates"]) == ("/a.jpg", 0.25, ["/b.jpg"])
    assert (first["width"], first["camera"], first["rating"], first["size"]) == (40, "X", 0, 9)
    assert (second["relevance"], second["width"], second["best_s"], second["match"]) == (None, None, 1.5, False)
    empty = Hits().to_arrow()
    assert empty.num_rows == 0 and empty.schema == table.schema and table.schema.field("rank").type == pa.int64()


def test_a_data_frame_of_pandas() -> None:
    pytest.importorskip("pandas")
    frame = HITS.to_pandas()
    assert [*frame.columns] == [*COLUMNS] and frame.path.tolist() == ["/a.jpg", "/c.mp4"]
    assert frame.width[0] == 40 and frame.width.isna().tolist() == [False, True] and frame.relevance.mean() == 0.9
    assert len(Hits().to_pandas()) == 0 and [*Hits().to_pandas().dtypes] == [*frame.dtypes]


@pytest.mark.parametrize(("library", "method"), [("pyarrow", "to_arrow"), ("pandas", "to_pandas")])
def test_without_the_library_it_says_what_to_install(library: str, method: str, monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(MmsearchError, match="pip install"):
        getattr(HITS, method)()


def test_pictures_as_arrays_and_bytes(tmp_path: Path) -> None:
    """They find what the file itself finds; hits know what their files say."""
    np, image = pytest.importorskip("numpy"), pytest.importorskip("PIL.Image")
    for name in ("red", "green", "blue"):
        save_colour(tmp_path / "files" / f"{name}.png", name, (40, 30))
    path = tmp_path / "files" / "green.png"
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(tmp_path / "files")
        expected = index.search(image=path)
        assert expected == index.search(image=path.read_bytes())
        assert expected == index.search(image=np.asarray(image.open(path).convert("RGB")))
        assert (expected[0].path, expected[0].info.width, expected[0].info.height) == (str(path), 40, 30)
        assert expected[0].document is not None and expected[0].document.size == path.stat().st_size
        for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), b"no picture"):
            with pytest.raises(MmsearchError):
                index.search(image=wrong)
