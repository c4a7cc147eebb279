"""By how large or how long a document is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmsearch.core.errors import UsageError
from mmsearch.filters.base import MAX_NUMBER, Filter, Parameters

Operator = Literal["<", "<=", "=", ">=", ">", ".."]
Measure = Literal["bytes", "pixels", "long_side"]

_MEASURE_SQL = {
    "bytes": "d.size",
    "pixels": "c.width * c.height",
    "long_side": "max(c.width, c.height)",
}


@dataclass(frozen=True)
class Comparison:
    """A number compared with ``value``; ``..`` is from ``value`` up to ``upper``, both included."""

    operator: Operator
    value: float
    upper: float | None = None

    def __post_init__(self) -> None:
        if self.operator not in ("<", "<=", "=", ">=", ">", ".."):
            raise UsageError(f'unknown comparison "{self.operator}"; expected < <= = >= > or ..')
        if (self.upper is None) == (self.operator == ".."):
            raise UsageError(f"the comparison {self.operator} has upper end {self.upper}; only .. has one")
        for number in (self.value, self.upper):
            if number is not None and not 0 <= number <= MAX_NUMBER:
                raise UsageError(f"{number:g} is out of range; expected 0 to {MAX_NUMBER:g}")
        if self.upper is not None and self.upper < self.value:
            raise UsageError("the range ends below its beginning; write the smaller number first")

    def sql(self, expression: str, parameters: Parameters) -> str:
        """The comparison of an SQL expression."""
        if self.operator == "..":
            return f"{expression} BETWEEN {parameters.add(self.value)} AND {parameters.add(self.upper)}"
        return f"{expression} {self.operator} {parameters.add(self.value)}"


@dataclass(frozen=True)
class SizeFilter(Filter):
    """Documents by bytes of the file, pixels of the picture, or pixels of its longer side.

    A document whose picture size is unknown (a text has none) does not match the latter two.
    """

    measure: Measure
    comparison: Comparison

    def __post_init__(self) -> None:
        if self.measure not in _MEASURE_SQL:
            raise UsageError(f'unknown measure "{self.measure}"; expected one of {", ".join(_MEASURE_SQL)}')

    def condition(self, parameters: Parameters) -> str:
        """The measure compares so."""
        return self.comparison.sql(_MEASURE_SQL[self.measure], parameters)


@dataclass(frozen=True)
class DurationFilter(Filter):
    """Videos by length in seconds; what has no length does not match."""

    comparison: Comparison

    def condition(self, parameters: Parameters) -> str:
        """``c.duration_s`` compares so."""
        return self.comparison.sql("c.duration_s", parameters)
