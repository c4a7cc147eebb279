"""Options from the parameters of an address."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from mmsearch.core.errors import UsageError
from mmsearch.core.options import AnyOptions, OptionField, for_people, option_fields

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams

Default = TypeVar("Default", float, None)


class Limit(NamedTuple):
    """What the server sets itself for a field: its default, and the most that it allows."""

    default: Any
    most: float


def options_of(
    kind: type[AnyOptions], parameters: QueryParams, limits: Mapping[str, Limit], note: Callable[[str], None]
) -> AnyOptions:
    """Options of a request: a parameter for each field that has a flag. ``note`` gets a line about an old name.

    Raises:
        UsageError: a value out of bounds.
    """
    given: dict[str, Any] = {name: limit.default for name, limit in limits.items()}
    for each in option_fields(kind):
        if each.option.flag is None:
            continue
        name, old = each.http, each.option.old
        if old is not None and old in parameters and name not in parameters:
            note(f"{old} is called {name} now")
            name = old
        value = _value(each, parameters, name, limits.get(each.name))
        if value is not None:
            given[each.name] = value[0]
    return for_people(kind, given)


def _value(each: OptionField, parameters: QueryParams, name: str, limit: Limit | None) -> tuple[Any] | None:
    """The value of a field in a tuple; ``None`` where it was left out."""
    if name not in parameters:
        return None
    if each.many:
        return (parameters.getlist(name),)
    if each.has_switch:
        return (each.option.switch,) if is_on(parameters, name) else None
    if each.type is bool:
        return (each.shown != is_on(parameters, name),)
    if each.type is str:
        return (parameters[name],)
    o = each.option
    least = next((bound for bound in (o.least, o.above) if bound is not None), float("-inf"))
    most = next((bound for bound in (limit and limit.most, o.most) if bound is not None), float("inf"))
    value = number(parameters, name, None, least, most)
    return None if value is None else (int(value) if each.type is int else value,)


def is_on(parameters: QueryParams, name: str) -> bool:
    """Whether a parameter switches something on."""
    return parameters.get(name, "0") not in ("0", "", "false")


def number(parameters: QueryParams, name: str, default: Default, least: float, most: float) -> float | Default:
    """A parameter as a number.

    Raises:
        UsageError: it is none, or out of bounds.
    """
    text = parameters.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise UsageError(f"{name} is {text!r}; a number from {least:g} to {most:g} is expected")
    return value
