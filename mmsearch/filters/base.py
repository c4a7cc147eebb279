"""The contract of a filter, and how several become one SQL condition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field

from mmsearch.core.errors import UsageError

MAX_NUMBER = 1e18
"""No size, duration or radius above this is accepted; none exists."""


class Parameters:
    """The values of one SQL condition, each under a name of its own."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}

    def add(self, value: object) -> str:
        """The placeholder under which the value travels, such as ``:filter_3``."""
        name = f"filter_{len(self.values)}"
        self.values[name] = value
        return f":{name}"


@dataclass(frozen=True)
class Filter(ABC):
    """One condition. ``negated`` turns it into its exact complement."""

    negated: bool = field(default=False, kw_only=True)

    @abstractmethod
    def condition(self, parameters: Parameters) -> str:
        """SQL that is true where the filter, not negated, says yes; false or NULL elsewhere."""


def to_sql(filters: Iterable[Filter]) -> tuple[str, dict[str, object]]:
    """The WHERE condition that all filters say yes, and its named parameters.

    No filters give ``"TRUE"``. The text uses the aliases ``d`` (documents) and ``c`` (contents) and contains
    no value. The connection needs ``register_functions``.
    """
    parameters = Parameters()
    conditions = []
    for one in filters:
        condition = one.condition(parameters)
        conditions.append(f"({condition}) IS NOT TRUE" if one.negated else f"({condition})")
    return " AND ".join(conditions) or "TRUE", parameters.values


def check_text(text: str, what: str) -> None:
    """Refuses a text without anything in it, and one that no database can hold."""
    if not text.strip():
        raise UsageError(f"the {what} is empty")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(f"the {what} {text!a} is not valid Unicode")
