"""Options: frozen dataclasses whose fields say once what every surface must know of them.

    @dataclass(frozen=True)
    class SearchOptions(Options):
        k: int = option(10, "How many results.", flag="-k", least=1)

The command line (`mmsearch.cli.options`), the server (`mmsearch.server.parameters`) and the keywords of Python
(`from_keywords`) are made from the fields, and the bounds are checked wherever an object is made. A new option is one
field.
"""

from __future__ import annotations

import difflib
import operator
import sys
import types
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from mmsearch.core.errors import UsageError

AnyOptions = TypeVar("AnyOptions", bound="Options")
_KEY = "option"
_NOT_SET: Any = object()


@dataclass(frozen=True)
class Option:
    """What a field is called and may be, beside its type and its default.

    ``help``: a line for people. ``flag``: its name on the command line and, without dashes, in HTTP; ``None`` keeps it
    to Python. ``http``: another name there. ``keyword``: the name of the keyword in Python, where it is not that of
    the field. ``old``: a name that still works, with a note. ``least``, ``most``: bounds, both allowed; ``above``: one
    that is not. ``metavar``: stands for the value in the help.

    ``shown``: the default of command line and HTTP, where people ask, if it is another one. Of a truth value the flag
    sets the opposite. ``switch``: what the flag alone sets, for a field that is no truth value; with a ``metavar``
    this is so in HTTP only, the command line takes the value. ``replaces``: the field that is left ``None`` where this
    one is given there. ``read`` turns what a surface gives (Python too) into the value of the field.
    """

    help: str
    flag: str | None = None
    http: str | None = None
    keyword: str | None = None
    old: str | None = None
    least: float | None = None
    most: float | None = None
    above: float | None = None
    metavar: str | None = None
    shown: Any = _NOT_SET
    switch: Any = _NOT_SET
    replaces: str | None = None
    read: Callable[[Any], Any] | None = None


def option(default: Any, help: str, **more: Any) -> Any:
    """A field of options with its default and its line of help; ``more`` as in `Option`."""
    return field(default=default, metadata={_KEY: Option(help, **more)})


class OptionField(NamedTuple):
    """A field that `option` made. ``type`` is that of one value, ``many`` says that the field holds a tuple of them."""

    name: str
    type: Any
    many: bool
    choices: tuple[str, ...]
    default: Any
    option: Option

    @property
    def keyword(self) -> str:
        """What Python calls it."""
        return self.option.keyword or self.name

    @property
    def http(self) -> str:
        """What HTTP calls it."""
        return self.option.http or (self.option.flag or "").lstrip("-").replace("-", "_")

    @property
    def shown(self) -> Any:
        """Its default on the command line and in HTTP."""
        return self.default if self.option.shown is _NOT_SET else self.option.shown

    @property
    def has_switch(self) -> bool:
        """Whether its flag alone sets a value."""
        return self.option.switch is not _NOT_SET

    def read(self, given: Any) -> Any:
        """The value of the field for what a surface gave."""
        if self.option.read is not None:
            return self.option.read(given)
        return tuple(given) if self.many and given is not None else given

    def check(self, value: Any) -> None:
        """Raises `UsageError` for a value out of bounds."""
        o, name = self.option, self.keyword
        if value is None and self.default is None:
            return
        if self.choices and not self.many and value not in self.choices:
            *others, last = self.choices
            raise UsageError(f"no such {name}: {value}; there are {', '.join(others)} and {last}")
        if o.least is None and o.most is None and o.above is None:
            return
        try:
            if self.type is int:
                operator.index(value)
            fits = (o.least is None or value >= o.least) and (o.most is None or value <= o.most)
            fits = fits and (o.above is None or value > o.above)
        except TypeError:
            kind = "whole number" if self.type is int else "number"
            raise UsageError(f"{name} must be a {kind}, got {value!r}") from None
        if not fits:
            raise UsageError(f"{name} must be {self.bounds}, got {value:g}")

    @property
    def bounds(self) -> str:
        """``at least 1``, ``between 0 and 1``, ``above 0``."""
        o = self.option
        if o.above is not None:
            return f"above {o.above:g}" + ("" if o.most is None else f" and at most {o.most:g}")
        if o.least is not None and o.most is not None:
            return f"between {o.least:g} and {o.most:g}"
        return f"at least {o.least:g}" if o.least is not None else f"at most {o.most:g}"


class Options:
    """The base of all options: checks the bounds of its fields.

    Raises:
        UsageError: a value that is out of bounds, or no number where one must be.
    """

    def __post_init__(self) -> None:
        for each in option_fields(type(self)):
            each.check(getattr(self, each.name))


_FIELDS: dict[type[Options], tuple[OptionField, ...]] = {}


def option_fields(kind: type[Options]) -> tuple[OptionField, ...]:
    """The fields of ``kind`` that `option` made, in their order."""
    if kind in _FIELDS:
        return _FIELDS[kind]
    made = []
    for each in fields(kind):  # type: ignore[arg-type]
        if _KEY in each.metadata:
            annotation = each.type
            if isinstance(annotation, str):
                annotation = eval(annotation, vars(sys.modules[kind.__module__]))
            made.append(OptionField(each.name, *_described(annotation), each.default, each.metadata[_KEY]))
    _FIELDS[kind] = tuple(made)
    return _FIELDS[kind]


def _described(annotation: Any) -> tuple[Any, bool, tuple[str, ...]]:
    """The type of one value, whether there may be several, and the words that are allowed."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is tuple:
        inner, _, choices = _described(get_args(annotation)[0])
        return inner, True, choices
    if get_origin(annotation) is Literal:
        return str, False, get_args(annotation)
    return annotation, False, ()


def from_keywords(
    kind: type[AnyOptions], given: Mapping[str, Any], base: AnyOptions | None = None, *, level: int = 3
) -> AnyOptions:
    """Options from the keywords of a Python function, on top of ``base``; old names work with a warning.

    ``level``: whose line the warning names, as for `warnings.warn`.

    Raises:
        UsageError: a keyword that does not exist, or a value out of bounds.
    """
    if base is not None and not isinstance(base, kind):
        raise UsageError(f"options must be {kind.__name__}, got {type(base).__name__}")
    if not given:
        return base or kind()
    known = {each.name: each for each in option_fields(kind)} | {each.keyword: each for each in option_fields(kind)}
    old = {each.option.old: each for each in option_fields(kind) if each.option.old}
    values = {}
    for name, value in given.items():
        if name in old:
            warnings.warn(f"{name} is called {old[name].keyword} now", DeprecationWarning, stacklevel=level)
        elif name not in known:
            [*close] = difflib.get_close_matches(name, known, 1)
            hint = f": did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"
            raise UsageError(f"there is no option {name}{hint}")
        each = old.get(name) or known[name]
        values[each.name] = each.read(value)
    return replace(base or kind(), **values)  # type: ignore[type-var]


def for_people(kind: type[AnyOptions], given: Mapping[str, Any]) -> AnyOptions:
    """Options as command line and HTTP make them: fields that are not in ``given`` have the default for people.

    Raises:
        UsageError: a value out of bounds.
    """
    values = {each.name: each.shown for each in option_fields(kind)}
    for each in option_fields(kind):
        if each.name in given and each.option.replaces is not None:
            values[each.option.replaces] = None
    return kind(
        **{**values, **{each.name: each.read(given[each.name]) for each in option_fields(kind) if each.name in given}}
    )


Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["fp32", "int8", "auto"]


@dataclass(frozen=True)
class EncoderOptions(Options):
    """How to run an encoder; none of it changes what its vectors mean.

    ``precision`` ``None`` is what the index was made with, which its model's name says.

    ``batch_size`` ``None`` lets the encoder choose. ``compile`` asks for torch.compile where torch runs. ``threads``
    limits the CPU threads of the encoder (``None``: all cores that this process may use). ``few_texts`` is for a
    process that encodes one query: the built-in text encoder opens in a fifth of the time and takes 200 MB less, but 5
    to 10 ms more a text. ``single_texts`` is for a server, whose texts come one at a time: one thread of the built-in
    text encoder takes each. Several would take more of the processor for a short text, and hardly less time.
    """

    device: Device = option("auto", "Where open_clip models run: auto, cpu, cuda or mps.", flag="--device")
    batch_size: int | None = option(None, "Images in one batch of the encoder.", flag="--batch-size", least=1)
    precision: Precision | None = option(
        None,
        "Of images on a CPU: fp32, int8 (about twice as fast; with models of open_clip and transformers only if the"
        " first 64 photos show that it does no harm) or auto (the faster). An index remembers it; fp32 at first.",
        flag="--precision",
    )
    compile: bool = option(False, "Use torch.compile (open_clip models).", flag="--compile")
    threads: int | None = option(None, "CPU threads.", least=1)
    few_texts: bool = option(False, "Open the built-in text encoder quickly.")
    single_texts: bool = option(False, "One thread for a text of the built-in text encoder.")
