"""By what a document is and when it was made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from mmsearch.core.errors import UsageError
from mmsearch.core.types import MODALITIES, Modality
from mmsearch.filters.base import Filter, Parameters

DOCUMENT_DATE_SQL = "COALESCE(c.taken_at, strftime('%Y-%m-%dT%H:%M:%S', d.mtime_ns / 1000000000, 'unixepoch'))"
"""The date by which documents are listed: when it was taken, else when the file was last changed (UTC)."""


@dataclass(frozen=True)
class TypeFilter(Filter):
    """Documents of any of these modalities."""

    modalities: tuple[Modality, ...]

    def __post_init__(self) -> None:
        unknown = [name for name in self.modalities if name not in MODALITIES]
        if unknown or not self.modalities:
            found = f'unknown type "{unknown[0]}"' if unknown else "no type given"
            raise UsageError(f"{found}; expected one or more of {', '.join(MODALITIES)}")

    def condition(self, parameters: Parameters) -> str:
        """``d.modality`` is one of them."""
        return f"d.modality IN ({', '.join(parameters.add(name) for name in self.modalities)})"


@dataclass(frozen=True)
class After(Filter):
    """Documents dated at the moment or later.

    The date of a document is when it was taken, in the camera's local time; without that, the time at which
    its file was last changed, in UTC, so that a copied index answers the same in every time zone. ``moment``
    has no zone and whole seconds.
    """

    moment: datetime

    def __post_init__(self) -> None:
        _check_moment(self.moment)

    def condition(self, parameters: Parameters) -> str:
        """Date ≥ moment."""
        return _dated(">=", self.moment, parameters)


@dataclass(frozen=True)
class Before(Filter):
    """Documents dated earlier than the moment: the complement of ``After`` the same moment."""

    moment: datetime

    def __post_init__(self) -> None:
        _check_moment(self.moment)

    def condition(self, parameters: Parameters) -> str:
        """Date < moment."""
        return _dated("<", self.moment, parameters)


def shortest_iso(moment: datetime) -> str:
    """ISO 8601 to the day, minute or second, whichever is enough: ``2021-07-03``, ``2021-07-03T12:30``."""
    text = moment.isoformat(timespec="seconds")
    return text.removesuffix(":00").removesuffix("T00:00")


def _dated(operator: str, moment: datetime, parameters: Parameters) -> str:
    # Texts of one form sort as their dates do, and a shorter text sorts before those that it begins; so the
    # shortest form is also right against dates that the catalogue knows only to the day.
    elapsed = moment - datetime(1970, 1, 1)
    nanoseconds = elapsed // timedelta(seconds=1) * 10**9
    # Beyond 64 bits (the years before 1677 and after 2262) only the order matters, and a float keeps it.
    stamp = nanoseconds if abs(nanoseconds) < 2**63 else float(nanoseconds)
    taken = f"c.taken_at {operator} {parameters.add(shortest_iso(moment))}"
    return f"{taken} OR (c.taken_at IS NULL AND d.mtime_ns {operator} {parameters.add(stamp)})"


def _check_moment(moment: datetime) -> None:
    if moment.tzinfo is not None or moment.microsecond:
        raise UsageError(f"the moment is {moment.isoformat()}; expected whole seconds without a time zone")
