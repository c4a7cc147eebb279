"""Many queries against codes: products of whole numbers, which run several times as fast as those of floats.

A block of codes is multiplied with queries in whole numbers of one byte. ONNX Runtime adds such products up exactly in
32 bits, if the processor does: where it adds pairs of them in 16 bits first, which holds no two large ones, queries get
7 bits. How far the scores of the vectors may lie from that is known for each query and block (`whole_number_slack`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.system import session_settings
from mmsearch.store.local.files.codes import STEPS, ZERO, Codes
from mmsearch.store.local.vector_index.base import Floats, Mask
from mmsearch.store.local.vector_index.products import LARGEST, Compare, Compared, Doubles, gamma
from mmsearch.store.local.vector_index.residency import Residency

ROWS = 4096
"""Rows of one product: with 512 queries it takes 8 MB."""
SHORT = 63
"""The largest whole number of a query where sums of two products must fit 16 bits: 2 · 255 · 63 does."""

MATMUL_INTEGER = bytes.fromhex(
    "08083a5e0a280a04726f77730a0771756572696573120870726f6475637473220d4d61744d756c496e74656765721201675a0c0a04"
    "726f777312040a0208025a0f0a077175657269657312040a02080362100a0870726f647563747312040a02080642040a00100a"
)
"""An ONNX graph of one node: MatMulInteger(rows uint8, queries int8) → products int32."""


def compare_codes(blocks: Codes, mask: Mask | None, residency: Residency) -> Compare:
    """Compares queries with all rows of ``blocks``, or with those that ``mask``, (rows,) or longer, names."""

    def compare(queries: Floats) -> Iterable[Compared | None]:
        exact, size = queries.astype(np.float64), blocks["codes"].shape[1]
        kept = residency.rows_kept(1)
        for number, block in enumerate(blocks):
            whole = _WholeQueries.of(exact, block, products().largest)
            if whole is None:
                yield None
                return
            yield from _compare_block(whole, block["codes"], number * size, mask)
            residency.release(max(number, kept), number + 1)

    return compare


def _compare_block(
    whole: _WholeQueries, codes: npt.NDArray[np.uint8], first: int, mask: Mask | None
) -> Iterator[Compared]:
    for low in range(0, len(codes), ROWS):
        part = codes[low : low + ROWS]
        rows = np.arange(first + low, first + low + len(part), dtype=np.int64)
        raw = products().of(part, whole.numbers)
        if mask is not None and not (allowed := mask[rows]).all():
            rows, raw = rows[allowed], raw[allowed]
        if len(rows):
            yield Compared(rows, raw, whole.unit, whole.offset, whole.slack)


@dataclass(frozen=True, eq=False)
class _WholeQueries:
    """Queries as one block of codes is multiplied with them.

    With the steps s of the block, q · vector = q · centre + (q·s) · (code − ZERO), but for what the codes lose; and q·s
    is a unit times whole ``numbers``, int8 (dim, q), but for at most half a unit in each dimension.
    """

    numbers: npt.NDArray[np.int8]
    unit: Doubles
    offset: Doubles
    slack: Doubles

    @classmethod
    def of(cls, queries: Doubles, block: Any, largest: int) -> _WholeQueries | None:
        """``None`` where numbers are too large to say how far off they are."""
        centre = block["centre"].astype(np.float64)
        stretched = queries * block["steps"]
        unit = np.abs(stretched).max(axis=1) / largest
        unit[unit == 0] = 1.0
        whole = np.rint(stretched / unit[:, None])
        lost = np.linalg.norm(stretched - whole * unit[:, None], axis=1) * block["code_length"]
        slack = whole_number_slack(np.linalg.norm(queries, axis=1), lost, unit * largest, block, centre)
        if not np.isfinite(slack).all():
            return None
        offset = queries @ centre - ZERO * unit * whole.sum(axis=1)
        return cls(np.ascontiguousarray(whole.T.astype(np.int8)), unit, offset, slack)


def whole_number_slack(lengths: Any, lost: Any, largest: Any, block: Any, centre: Doubles) -> Any:
    """How far the score of a vector may lie from what its code and whole numbers say, for queries of these ``lengths``.

    ``lost``: what whole numbers lose of a score; ``largest``: of the numbers they stand for; ``block`` has ``error``,
    ``length`` and ``code_length``. Cauchy and Schwarz for what codes and whole numbers lose, and Higham (see
    `products`) for sums in another order, with room. Infinite: too large to tell.
    """
    error, length, code_length = (float(block[name]) for name in ("error", "length", "code_length"))
    summed = lengths * (length + float(np.linalg.norm(centre))) + largest * centre.size**0.5 * code_length
    slack = lengths * error + lost + 4 * gamma(centre.size) * summed + centre.size * 2.0**-140
    return np.where(summed < LARGEST, slack, np.inf)


class IntegerProducts:
    """Products of bytes, summed exactly. Any number of threads may use it.

    ``largest``: what the numbers of a query may reach; by default as much as sums stay exact with here.
    """

    def __init__(self, largest: int | None = None) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(
            MATMUL_INTEGER, session_settings(), providers=["CPUExecutionProvider"]
        )
        self.largest = largest or (STEPS if self._adds_up(STEPS) else SHORT)

    def of(self, rows: npt.NDArray[np.uint8], numbers: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
        """(n, dim) bytes and (dim, q) whole numbers of up to ``largest`` to their products, (n, q)."""
        products: npt.NDArray[np.int32] = self._session.run(None, {"rows": rows, "queries": numbers})[0]
        return products

    def _adds_up(self, largest: int) -> bool:
        rows, numbers = np.full((64, 128), 255, np.uint8), np.full((128, 64), largest, np.int8)
        return bool((self.of(rows, numbers) == 255 * largest * 128).all())


@functools.cache
def products() -> IntegerProducts:
    """Those of this process."""
    return IntegerProducts()
