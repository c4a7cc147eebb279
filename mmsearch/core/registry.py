"""Things that mmsearch knows by name: its own, and those that installed packages bring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from mmsearch.core.errors import UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Row = TypeVar("Row")


class Registry(Generic[Row]):
    """Rows by name, in the order in which they were added; those of installed packages come last.

    A package brings a row with an entry point in ``group``: its name is the row's, its object the row itself. Own
    rows win over entry points of the same name. A row may be given as ``"module:attribute"``, which is imported when
    the row is first wanted. The entry points of the machine take tens of milliseconds to list, so that happens only
    where a name is not among the own rows, or where all names are wanted.
    """

    def __init__(self, group: str, what: str, rows: Mapping[str, Row | str] | None = None) -> None:
        """``what``: what a row is, in messages, such as ``"encoder"``."""
        self.group, self.what = group, what
        self._rows: dict[str, Row | str] = dict(rows or {})
        self._loaded: dict[str, Row] = {}

    def add(self, name: str, row: Row | str) -> None:
        """Makes a row known.

        Raises:
            UsageError: another row has that name.
        """
        if name in self._rows:
            raise UsageError(f"there is a {self.what} {name} already")
        self._rows[name] = row

    @property
    def own(self) -> tuple[str, ...]:
        """The names of what is known without a look at installed packages."""
        return tuple(self._rows)

    def names(self) -> tuple[str, ...]:
        """All names."""
        return tuple(dict.fromkeys((*self._rows, *self._installed)))

    def find(self, name: str) -> Row | None:
        """The row of that name, or ``None``.

        Raises:
            UsageError: an installed package brings it, and it cannot be loaded.
        """
        if name in self._loaded:
            return self._loaded[name]
        row = self._rows.get(name)
        if isinstance(row, str):
            module, _, attribute = row.partition(":")
            row = cast(Row, getattr(import_module(module), attribute))
        elif row is None and name in self._installed:
            point = self._installed[name]
            try:
                row = cast(Row, point.load())
            except Exception as error:  # whatever a foreign module does when it is imported
                raise UsageError(f"the {self.what} {name} ({point.value}) cannot be loaded: {error}") from error
        if row is not None:
            self._loaded[name] = row
        return row

    def __getitem__(self, name: str) -> Row:
        """The row of that name.

        Raises:
            UsageError: there is none; the message lists the names.
        """
        row = self.find(name)
        if row is None:
            raise UsageError(f'unknown {self.what} "{name}"; expected one of {", ".join(self.names())}')
        return row

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._rows or name in self._installed

    @cached_property
    def _installed(self) -> Mapping[str, EntryPoint]:
        from importlib.metadata import entry_points

        return {point.name: point for point in entry_points(group=self.group)}
