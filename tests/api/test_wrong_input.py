"""Whatever a program gives by mistake is an error of mmsearch, with a sentence; or it is an answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch import Index, MmsearchError, Question, SearchOptions
from tests.support.colours import ColourEncoder, save_colour

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=8), st.binary(max_size=8),
    st.lists(st.one_of(st.text(max_size=3), st.integers(-2, 2), st.none(), st.binary(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from([
        object(), datetime(2020, 1, 1), Path("no/such"), "\0", "\ud800", "red", "type:image", "befor:2020", '"', "-",
        np.zeros((2, 2)), np.zeros((3, 4, 3), np.uint8), np.zeros((0, 4, 3), np.uint8), np.float32(1), SearchOptions(),
        Question(("red",)), Question, [["red"]], [[1.0]], float("inf"), 10**30, b"\x89PNG", {"path": "x"}, range(3),
        Image.new("L", (1, 1)), Image.new("RGBA", (2, 2)),
    ]),
)  # fmt: skip
CALLS: dict[str, tuple[str, ...]] = {
    "search": ("text", "image", "vector", "query_kind", "raw", "text_weight", "image_weight", "reranker", "options",
               "k", "modality", "min_relevance", "words", "hubness", "language", "collapse", "rerank_budget_s"),
    "search_many": ("queries", "raw", "reranker", "options", "k"),
    "moments": ("path", "text", "image", "raw", "options", "k"),
    "explain": ("text", "path", "raw", "heat_map", "reranker"),
    "transcript": ("path",), "documents": ("filters",), "vectors": ("filters",), "duplicates": ("filters", "near"),
    "modality_of": ("path",), "document_at": ("path",), "remove": ("paths",), "add": ("paths", "options"),
    "add_embeddings": ("vectors", "rows", "dataset", "normalize"), "import_folder": ("folder", "options"),
    "import_parquet": ("folder",), "reranker": ("name",), "agreement": ("judgements", "captions"),
    "evaluate": ("file", "qrels", "template", "options", "reranker", "rerank_depth"),
}  # fmt: skip
BROWSED = {
    "count": ("filters",), "documents": ("filters", "order", "limit", "offset"), "months": ("filters",),
    "folders": ("filters",), "values": ("field", "limit"), "span": ("field",), "details": ("path",),
}  # fmt: skip


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    folder = tmp_path_factory.mktemp("wrong")
    save_colour(folder / "files" / "red.png", "red")
    save_colour(folder / "files" / "blue.png", "blue")
    (folder / "elsewhere").mkdir()
    with (
        pytest.MonkeyPatch.context() as patched,
        Index.open(folder / "index", create=True, encoder=ColourEncoder()) as made,
    ):
        patched.chdir(folder / "elsewhere")  # where a path that is made up leads to nothing
        made.add(folder / "files")
        yield made


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_wrong_input_is_an_error_of_mmsearch(index: Index, data: st.DataObject) -> None:
    on, calls = data.draw(st.sampled_from([(index, CALLS), (index.browse, BROWSED)]))
    name = data.draw(st.sampled_from(sorted(calls)))
    names = data.draw(st.lists(st.sampled_from(calls[name]), min_size=1, max_size=3, unique=True))
    values: dict[str, Any] = {each: data.draw(ANYTHING) for each in names}
    if calls[name][0] not in values and name not in (
        "search",
        "evaluate",
        "duplicates",
        "documents",
        "vectors",
        "count",
    ):
        values[calls[name][0]] = data.draw(ANYTHING)
    try:
        result = getattr(on, name)(**values)
        if isinstance(result, Iterator):
            list(result)
    except MmsearchError as error:
        assert str(error) and "\n\n\n" not in str(error)
    except TypeError as error:  # of Python itself: an argument is missing
        assert "required" in str(error) and "argument" in str(error), values
