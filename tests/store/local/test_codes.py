"""Vectors in bytes: never farther off than they say, as many as the vector file fills, and nothing that decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.core.errors import VectorError
from mmsearch.store.local.files import codes as code_file
from mmsearch.store.local.files.codes import ZERO, Codes, encode
from mmsearch.store.local.files.vectors import VectorFile
from mmsearch.store.local.vector_index import ExactIndex, by_codes, code_products, products
from mmsearch.store.local.vector_index import exact as exact_module

BLOCK = 32
INTEGER_PRODUCTS = code_products.IntegerProducts(), code_products.IntegerProducts(code_products.SHORT)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VectorFile:
    monkeypatch.setattr(code_file, "BLOCK", BLOCK)
    return VectorFile(tmp_path / "vectors.f16", 16)


def unit(n: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x.astype(np.float32)


def in_blocks(matrix: np.ndarray, rows: int) -> Codes | None:
    """Codes of as many whole blocks of ``rows`` rows as there are."""
    blocks: list[Codes] = []
    for low in range(0, len(matrix) - rows + 1, rows):
        blocks.append(encode(matrix[low : low + rows], blocks[0]["centre"][0] if blocks else None))
    return np.concatenate(blocks) if blocks else None


NUMBERS = st.floats(-1000, 1000, width=16) | st.sampled_from([0.0, 6e-8, -6e-8, 65504.0, -65504.0, 1.0])


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_vector_is_farther_from_its_codes_than_the_block_says(data: st.DataObject) -> None:
    rows, dim = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    values = data.draw(st.lists(NUMBERS, min_size=rows * dim, max_size=rows * dim))
    vectors = np.array(values, dtype=np.float16).reshape(rows, dim)
    centre = data.draw(st.none() | st.lists(NUMBERS, min_size=dim, max_size=dim))
    block = encode(vectors, None if centre is None else np.array(centre, np.float32))[0]
    steps, codes = block["steps"].astype(np.float64), block["codes"].astype(np.float64) - ZERO
    lost = vectors.astype(np.float64) - block["centre"] - codes * steps
    assert (np.linalg.norm(lost, axis=1) <= block["error"]).all()
    assert (np.linalg.norm(vectors.astype(np.float64), axis=1) <= block["length"]).all()
    assert (np.linalg.norm(codes, axis=1) <= block["code_length"]).all()
    assert np.abs(codes).max() <= code_file.STEPS


def test_damaged_vectors_take_nothing_from_the_others() -> None:
    matrix = unit(40).astype(np.float16)
    matrix[7, 3], matrix[9, 2] = np.nan, np.inf
    fine = np.delete(np.arange(40), [7, 9])
    block = encode(matrix)[0]
    vectors = block["centre"] + block["steps"] * (block["codes"].astype(np.float32) - ZERO)
    assert (np.linalg.norm(vectors[fine] - matrix[fine], axis=1) <= block["error"]).all() and block["error"] < 0.02


def test_codes_of_unit_vectors_are_close() -> None:
    """At most half a step is lost in each dimension."""
    matrix = unit(500, 64).astype(np.float16)
    block = encode(matrix)[0]
    assert block["error"] <= 0.5 * np.linalg.norm(block["steps"]) + 1e-5
    assert block["error"] < 0.012


def test_blocks_are_written_as_they_fill(file: VectorFile) -> None:
    rows = unit(3 * BLOCK + 5)
    for start, stop, blocks in ((0, 20, 0), (20, 40, 1), (40, 60, 1), (60, 95, 2), (95, len(rows), 3)):
        file.append(rows[start:stop], at=start)
        assert file.codes.rows_on_disk() == blocks
    assert not file.codes.wrong_blocks(file.map(len(rows)))
    codes = file.codes.map(len(rows))
    assert codes is not None and (codes["centre"] == codes["centre"][0]).all()
    assert file.codes.map(BLOCK - 1) is None
    fewer = file.codes.map(2 * BLOCK + 1)
    assert fewer is not None and np.array_equal(fewer, codes[:2])


def test_rows_that_were_never_committed_leave_no_codes(file: VectorFile) -> None:
    file.append(unit(70, seed=1), at=0)
    file.append(unit(70, seed=2), at=40)
    assert not file.codes.wrong_blocks(file.map(110))
    assert file.cut(50) == 60 * 32
    assert file.codes.rows_on_disk() == 1
    file.append(unit(20, seed=3), at=50)
    assert file.codes.rows_on_disk() == 2 and not file.codes.wrong_blocks(file.map(70))


def test_codes_that_are_missing_are_made_by_the_next_writer(file: VectorFile) -> None:
    file.append(unit(100), at=0)
    file.codes.path.unlink()
    assert file.codes.map(100) is None
    file.cut(100)
    assert file.codes.rows_on_disk() == 3 and not file.codes.wrong_blocks(file.map(100))


@pytest.mark.parametrize("field", ["codes", "steps", "centre", "error", "length", "code_length"])
def test_wrong_codes_are_noticed_and_mended_in_place(file: VectorFile, field: str) -> None:
    file.append(unit(100), at=0)
    size, node = file.codes.bytes_on_disk(), file.codes.path.stat().st_ino
    blocks = np.memmap(file.codes.path, dtype=file.codes.map(100).dtype, mode="r+")  # type: ignore[union-attr]
    blocks[field][2] += 1
    blocks.flush()
    assert file.codes.wrong_blocks(file.map(100))
    file.codes.mend(file.map(100), file.codes.wrong_blocks(file.map(100)))
    assert not file.codes.wrong_blocks(file.map(100))
    assert (file.codes.bytes_on_disk(), file.codes.path.stat().st_ino) == (size, node)


def test_deleting_takes_the_codes_along(file: VectorFile) -> None:
    file.append(unit(100), at=0)
    file.delete()
    file.delete()
    assert list(file.path.parent.iterdir()) == []


def same(index: ExactIndex, plain: ExactIndex, queries: np.ndarray, k: int, **options: object) -> None:
    found = index.search(queries, k, **options)  # type: ignore[arg-type]
    for one, other in zip(found, plain.search(queries, k, **options), strict=True):  # type: ignore[arg-type]
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.scores, other.scores)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_codes_change_no_answer(data: st.DataObject) -> None:
    """Bit by bit, whatever was allowed, repeated, out of scale or off centre, and however few rows are looked at."""
    n, dim = data.draw(st.integers(16, 400)), data.draw(st.sampled_from([1, 3, 16, 17, 32]))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = random.standard_normal((n, dim)).astype(np.float32)
    kind = data.draw(st.sampled_from(["unit", "off centre", "any length", "copies", "small", "zeros"]))
    if kind == "off centre":
        values[:, 0] = values[:, 0] * 0.01 + 9
    if kind != "any length":
        values /= np.linalg.norm(values, axis=1, keepdims=True)
    if kind == "copies":
        values = values[random.integers(0, 3, n)]
    scale = {"small": 1e-6, "zeros": 0.0}.get(kind, 1.0)
    matrix = (values * scale).astype(np.float16)
    queries = unit(data.draw(st.integers(1, 4)), dim, 5) * data.draw(st.sampled_from([1.0, 1e-30, 1e30, 0.0, 3e38]))
    without = data.draw(st.none() | st.lists(st.integers(0, n), max_size=n).map(np.array))
    k, threads = data.draw(st.integers(1, n)), data.draw(st.none() | st.integers(1, 3))
    index = ExactIndex(matrix, in_blocks(matrix, data.draw(st.sampled_from([16, 40, 64]))))
    narrow, crowded = data.draw(st.sampled_from([(0, 1), (1, 1), (0, 4)]))
    with (
        mock.patch.object(exact_module, "NARROW", narrow),
        mock.patch.multiple(by_codes, SAMPLE=data.draw(st.sampled_from([4, 16])), CROWDED=crowded),
    ):
        same(index, ExactIndex(matrix), queries.astype(np.float32), k, without=without, threads=threads)


@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize("share", [None, 0.2, 0.9])
def test_vectors_are_read_only_where_codes_leave_a_doubt(k: int, share: float | None) -> None:
    matrix, queries = unit(40_960, 48).astype(np.float16), unit(5, 48, 3)
    index = ExactIndex(matrix, in_blocks(matrix, 4096))
    only = None if share is None else np.random.default_rng(1).permutation(40_960)[: int(40_960 * share)]
    with mock.patch.object(ExactIndex, "_search_by_scans", side_effect=AssertionError("every vector was read")):
        found = index.search(queries, k, only=only, threads=2)
    for one, other in zip(found, ExactIndex(matrix).search(queries, k, only=only, threads=2), strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)


def test_a_large_dimension_that_is_nearly_the_same_in_all_vectors_costs_no_precision() -> None:
    """As in CLIP's vectors: codes are taken around the mean."""
    values = unit(20_480, 64)
    values[:, 5] = 5 + 0.01 * values[:, 5]
    matrix = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)
    query = matrix[77:78].astype(np.float32)
    index = ExactIndex(matrix, in_blocks(matrix, 4096))
    with mock.patch.object(ExactIndex, "_search_by_scans", side_effect=AssertionError("every vector was read")):
        (found,) = index.search(query, 10, threads=1)
    assert found.rows.tolist() == ExactIndex(matrix).search(query, 10)[0].rows.tolist()


def test_codes_of_other_vectors_are_refused() -> None:
    matrix = unit(100).astype(np.float16)
    with pytest.raises(VectorError, match=r"codes of 96 vectors of 16 dimensions.*\(90, 16\)"):
        ExactIndex(matrix[:90], in_blocks(matrix, 32))
    with pytest.raises(VectorError, match="different centres"):
        ExactIndex(matrix, np.concatenate([encode(matrix[:50]), encode(matrix[50:])]))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_codes_change_no_answer_to_many_queries(data: st.DataObject) -> None:
    """Bit by bit against searching query by query, whatever was allowed, repeated, out of scale or off centre."""
    n, dim = data.draw(st.integers(300, 900)), data.draw(st.sampled_from([1, 7, 32]))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = unit(n, dim, data.draw(st.integers(0, 99)))
    kind = data.draw(st.sampled_from(["unit", "off centre", "copies", "near copies", "small", "zeros"]))
    if kind == "off centre":
        values[:, 0] = values[:, 0] * 0.01 + 9
    if "copies" in kind:
        values = values[random.integers(0, 3, n)]
    if kind == "near copies":
        values = values + 1e-3 * random.standard_normal(values.shape)
    matrix = (values * {"small": 1e-6, "zeros": 0.0}.get(kind, 1.0)).astype(np.float16)
    queries = unit(40, dim, 5) * data.draw(st.sampled_from([1.0, 1e-30, 1e30, 0.0, 3e38]))
    queries[::7] *= random.uniform(-1, 1)
    without = data.draw(st.none() | st.lists(st.integers(0, n), max_size=n // 3).map(np.array))
    k = data.draw(st.integers(1, 20))
    index = ExactIndex(matrix, in_blocks(matrix, data.draw(st.sampled_from([64, 100, 250]))))
    plain = ExactIndex(matrix)
    queries, of_bytes = queries.astype(np.float32), data.draw(st.sampled_from(INTEGER_PRODUCTS))
    with (
        mock.patch.multiple(products, ROWS=1, CROWD=data.draw(st.sampled_from([1, 4096]))),
        mock.patch.object(code_products, "products", lambda: of_bytes),
        mock.patch.object(code_products, "ROWS", data.draw(st.sampled_from([30, 4096]))),
    ):
        assert products.is_worth_it(len(queries), k, n - (0 if without is None else len(without)))
        found = index.search(queries, k, without=without)
    for query, one in zip(queries, found, strict=True):
        (other,) = plain.search(query[None], k, without=without)
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.scores, other.scores)


def test_many_queries_read_vectors_only_where_codes_leave_a_doubt() -> None:
    matrix, queries = unit(40_960 + 700, 48).astype(np.float16), unit(50, 48, 3)
    index, plain = ExactIndex(matrix, in_blocks(matrix, 4096)), ExactIndex(matrix)
    without, gather = np.arange(0, 9000, 2), mock.Mock(side_effect=index.gather)
    with mock.patch.object(index, "gather", gather):
        found = index.search(queries, 20, without=without)
    assert sum(len(call.args[0]) for call in gather.call_args_list) < len(queries) * len(matrix) / 20
    for query, one in zip(queries, found, strict=True):
        np.testing.assert_array_equal(one.rows, plain.search(query[None], 20, without=without)[0].rows)


@pytest.mark.parametrize("largest", [63, 127])
def test_products_of_bytes_are_exact(largest: int) -> None:
    random = np.random.default_rng(0)
    rows = random.integers(0, 256, (70, 133)).astype(np.uint8)
    rows[:9] = 255
    numbers = random.integers(-largest, largest + 1, (133, 17)).astype(np.int8)
    numbers[:, :2] = largest, -largest
    multiply = code_products.IntegerProducts(largest if largest == code_products.SHORT else None)
    numbers = numbers.clip(-multiply.largest, multiply.largest)
    np.testing.assert_array_equal(multiply.of(rows, numbers), rows.astype(np.int64) @ numbers.astype(np.int64))


def test_the_graph_of_products_is_the_one_node_that_it_says() -> None:
    from onnx import TensorProto, helper

    def value(name: str, kind: int) -> Any:
        return helper.make_tensor_value_info(name, kind, None)

    node = helper.make_node("MatMulInteger", ["rows", "queries"], ["products"])
    taken = [value("rows", TensorProto.UINT8), value("queries", TensorProto.INT8)]
    graph = helper.make_graph([node], "g", taken, [value("products", TensorProto.INT32)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=8)
    assert model.SerializeToString() == code_products.MATMUL_INTEGER
