"""Defaults that a user keeps in a file, checked against the options that there are.

    [all]                # for every command that has the option
    index = "photos"

    [query]
    k = 20

A flag is stronger than a variable of the environment, that is stronger than the file, and the file is stronger than
the program's own default: click looks in this order, so the file only has to be given to it.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import typer

from mmsearch.core.errors import UsageError
from mmsearch.core.home import home
from mmsearch.core.options import OptionField, for_people
from mmsearch.core.regular import read_regular

VARIABLE = "MMSEARCH_CONFIG"
ALL = "all"
"""The table of options that hold for all commands that have them."""
MOST_BYTES = 1_000_000
_FOR_ONE_RUN = {"forget_missing", "mend", "open_", "version"}
"""What confirms or starts something now: as a standing default it would do so unasked."""


class Setting(NamedTuple):
    """An option that is set in a file. ``key``: ``query.k``; ``command``: its words, none for all commands."""

    key: str
    command: tuple[str, ...]
    option: str
    value: Any


def config_file() -> Path | None:
    """``$MMSEARCH_CONFIG`` (empty: no file), else ``config.toml`` in ``$MMSEARCH_HOME``, else where the platform keeps
    the settings of its user.
    """
    if (chosen := os.environ.get(VARIABLE)) is not None:
        return Path(chosen).expanduser().absolute() if chosen else None
    if os.environ.get("MMSEARCH_HOME"):
        return home() / "config.toml"
    import platformdirs

    return Path(platformdirs.user_config_dir("mmsearch", appauthor=False)) / "config.toml"


def read_table(file: Path) -> dict[str, Any]:
    """What a file says; nothing where there is none.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        data = read_regular(file, MOST_BYTES)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"the settings in {file} cannot be read: {error.strerror or error}") from error
    if data is None:
        raise UsageError(f"{file} is too large for a file of settings")
    toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        table: dict[str, Any] = toml.loads(data.decode())
    except ValueError as error:  # a UnicodeDecodeError, or one of the library's
        raise UsageError(f"{file} is no TOML: {error}") from error
    return table


def default_map(group: Any) -> dict[str, Any]:
    """What the file says, as click takes it: for each command the values of its parameters by their names.

    Raises:
        UsageError: the file cannot be read, or sets what does not exist or cannot be.
    """
    file = config_file()
    if file is None or not os.path.lexists(file):
        return {}
    try:
        found = list(settings(group, read_table(file)))
    except UsageError as error:
        message = str(error)
        raise UsageError(message if str(file) in message else f"{file}: {message}") from error
    made: dict[str, Any] = {}
    for setting in sorted(found, key=lambda one: len(one.command)):  # what is said of one command comes last
        for place in places(group, setting.command, setting.option):
            table = made
            for word in place.words:
                table = table.setdefault(word, {})
            table[place.param.name] = place.converted(setting.key, setting.value)
    return made


def settings(group: Any, table: Mapping[str, Any]) -> Iterator[Setting]:
    """What a table sets, each checked.

    Raises:
        UsageError: a command or an option that does not exist, or a value that cannot be.
    """
    for name, value in table.items():
        if not isinstance(value, Mapping):
            raise UsageError(f"{name} stands in no table: put it below [{ALL}], or below the command that it is for")
        yield from _settings_of(group, (name,), value)


def _settings_of(group: Any, words: tuple[str, ...], table: Mapping[str, Any]) -> Iterator[Setting]:
    command = () if words == (ALL,) else words
    _commands(group, command)
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _settings_of(group, (*words, name), value)
            continue
        key = ".".join((*words, name))
        for place in places(group, command, name):
            place.converted(key, value)
        yield Setting(key, command, name, value)


def setting_of(group: Any, key: str, given: Sequence[str] | None) -> Setting:
    """The setting of a key, ``query.k`` or ``index``, with the value that the words of a command line ``given`` make;
    ``None`` leaves it out.

    Raises:
        UsageError: there is none of that name, or the value cannot be.
    """
    *words, name = key.split(".")
    command = tuple(words) if words != [ALL] else ()
    place = places(group, command, name)[0]
    key = ".".join((*(command or (ALL,)), place.name))
    if given is None:
        return Setting(key, command, place.name, None)
    if not given:
        raise UsageError(f"give {key} a value: mmsearch config set {key} VALUE")
    if len(given) > 1 and not place.param.multiple:
        raise UsageError(f"{key} takes one value, got {len(given)}")
    value = place.converted(key, list(given) if place.param.multiple else given[0])
    plain = [_plain(each) for each in value] if place.param.multiple else _plain(value)
    return Setting(key, command, place.name, plain)


class Place(NamedTuple):
    """An option of a command: click's command and parameter; what it was made from, if it was: a field of options."""

    words: tuple[str, ...]
    command: Any
    param: Any
    kind: Any
    field: OptionField | None

    @property
    def name(self) -> str:
        """Its long flag without dashes."""
        return str(next((flag for flag in self.param.opts if flag.startswith("--")), self.param.opts[0])).lstrip("-")

    def converted(self, key: str, value: Any) -> Any:
        """A value as the option takes it.

        Raises:
            UsageError: it does not.
        """
        given = [value] if self.param.multiple and not isinstance(value, list) else value
        context = typer.Context(self.command, info_name=self.words[-1])
        try:
            made = self.param.process_value(context, given)
            if self.field is not None and not self.param.is_flag:
                for_people(self.kind, {self.field.name: made})
        except typer.BadParameter as error:
            raise UsageError(f"{key} cannot be {value!r}: {str(error.message).rstrip('.')}") from error
        except UsageError as error:
            raise UsageError(f"{key} cannot be {value!r}: {error}") from error
        return list(made) if self.param.multiple else made


def places(group: Any, command: tuple[str, ...], name: str) -> list[Place]:
    """The options of that name: of one command, or of all (no words); at least one.

    Raises:
        UsageError: there is no such command or option.
    """
    every = [place for words, one in _commands(group, command) for place in options_of(words, one)]
    wanted = name.replace("_", "-")
    if found := [place for place in every if place.name == wanted]:
        return found
    of = f"`mmsearch {' '.join(command)}` has" if command else "commands have"
    raise UsageError(f"{of} no option {name} to keep{_meant(wanted, sorted({place.name for place in every}))}")


def options_of(words: tuple[str, ...], command: Any) -> list[Place]:
    """What of a command may be kept."""
    fields = getattr(command.callback, "fields", {})
    return [
        Place(words, command, param, *fields.get(param.name, (None, None))) for param in command.params
        if param.param_type_name == "option" and not param.hidden and param.name not in _FOR_ONE_RUN
        and "--help" not in param.opts
    ]  # fmt: skip


def commands_of(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands by their words, groups too; but for those about the commands themselves."""
    for name, command in group.commands.items():
        if not command.hidden and (words or name not in ("config", "help")):
            yield (*words, name), command
            if hasattr(command, "commands"):
                yield from commands_of(command, (*words, name))


def _commands(group: Any, words: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    known = list(commands_of(group))
    chosen = [one for one in known if not words or one[0] == words]
    if not chosen:
        hint = _meant(" ".join(words), [" ".join(each) for each, _ in known])
        raise UsageError(f"there is no command {' '.join(words)}{hint}")
    return chosen


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _meant(given: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(given, known, 1)
    return f": did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"
