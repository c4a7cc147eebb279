"""Models of what requests may hold, made from the fields of options: the one place that names an option stays those."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    WrapValidator,
    create_model,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from mmsearch.core.errors import UsageError
from mmsearch.core.options import AnyOptions, OptionField, for_people, option_fields

Model = TypeVar("Model", bound=BaseModel)
_OLD = "old_"


class Limit(NamedTuple):
    """What the server sets itself for a field: its default, and the most that it allows."""

    default: Any
    most: float


class Strict(BaseModel):
    """The base of all models: what it does not name is refused."""

    model_config = ConfigDict(extra="forbid")


def number(kind: type[int] | type[float], least: float = float("-inf"), most: float = float("inf")) -> Any:
    """The type of a number from ``least`` to ``most``."""

    def check(given: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            value = handler(given)
        except ValidationError:
            value = float("nan")
        if not least <= value <= most or isinstance(given, bool):
            raise PydanticCustomError(
                "number", "a number from {least} to {most} is expected", {"least": f"{least:g}", "most": f"{most:g}"}
            )
        return value

    schema: dict[str, Any] = {"type": "integer" if kind is int else "number"}
    schema |= {"minimum": least} if least > float("-inf") else {}
    schema |= {"maximum": most} if most < float("inf") else {}
    return Annotated[kind, WrapValidator(check), WithJsonSchema(schema)]


Texts = Annotated[
    list[str],
    BeforeValidator(lambda given: [given] if isinstance(given, str) else given),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""Several texts, of which one may stand without a list around it in JSON."""


def model_of(
    kind: type[AnyOptions], limits: Mapping[str, Limit], name: str, base: type[BaseModel] = Strict
) -> type[BaseModel]:
    """``base`` with a field for each option that has a flag, by its name in HTTP; old names are there too."""
    made: dict[str, Any] = {}
    for each in option_fields(kind):
        if each.option.flag is None:
            continue
        limit, annotation = limits.get(each.name), _type_of(each, limits.get(each.name))
        usual = each.default if limit is None else limit.default
        about = each.option.help if usual in (None, False, True) else f"{each.option.help} By default {usual}."
        made[each.name] = (annotation | None, Field(None, alias=each.http, description=about))
        if each.option.old is not None:
            field = Field(None, alias=each.option.old, deprecated=f"It is called {each.http} now.")
            made[_OLD + each.name] = (annotation | None, field)
    return create_model(name, __base__=base, **made)


def _type_of(each: OptionField, limit: Limit | None) -> Any:
    o = each.option
    if each.many:
        return list[str]
    if each.has_switch or each.type is bool:
        return bool
    if each.type is str:
        return str
    least = next((bound for bound in (o.least, o.above) if bound is not None), float("-inf"))
    most = next((bound for bound in (limit and limit.most, o.most) if bound is not None), float("inf"))
    return number(each.type, least, most)


def options_from(
    kind: type[AnyOptions], asked: BaseModel, limits: Mapping[str, Limit], note: Callable[[str], None]
) -> AnyOptions:
    """Options of a request that was read by a model of `model_of`. ``note`` gets a line about an old name.

    Raises:
        UsageError: a value that the options refuse.
    """
    values = vars(asked)
    given: dict[str, Any] = {name: limit.default for name, limit in limits.items()}
    for each in option_fields(kind):
        value = values.get(each.name)
        if value is None and (value := values.get(_OLD + each.name)) is not None:
            note(f"{each.option.old} is called {each.http} now")
        if value is None or (each.has_switch and not value):
            continue
        given[each.name] = each.option.switch if each.has_switch else value
        if each.type is bool and not each.many:
            given[each.name] = each.shown != value
    return for_people(kind, given)


def read(model: type[Model], fields: Iterable[tuple[str, Any]]) -> Model:
    """A request from the names and values of an address or a form; a name may come several times.

    Raises:
        UsageError: with the first thing that is wrong.
    """
    lists = _lists(model)
    values: dict[str, Any] = {}
    for name, value in fields:
        if lists.get(name):
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise wrong(error.errors(), lists) from error


@lru_cache(maxsize=64)
def _lists(model: type[BaseModel]) -> dict[str, bool]:
    """The names of the fields of a model, and whether each may come several times."""
    return {_alias(name, each): "list" in str(each.annotation) for name, each in model.model_fields.items()}


def read_json(model: type[Model], data: bytes) -> Model:
    """A request from JSON.

    Raises:
        UsageError: with the first thing that is wrong.
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        known = [_alias(name, each) for name, each in model.model_fields.items()]
        raise wrong(error.errors(), known) from error


def _alias(name: str, field: FieldInfo) -> str:
    return field.alias or name


def wrong(errors: Iterable[Any], known: Iterable[str] = ()) -> UsageError:
    """The first of pydantic's errors in a sentence. ``known``: names that there are, for what is misspelled."""
    first = next(iter(errors))
    place = [str(part) for part in first["loc"] if part not in ("query", "body", "path")]
    name, given = ".".join(place), first.get("input")
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(place[-1], known, 1) if place else []
        return UsageError(f"there is no parameter {name}" + (f": did you mean {close[0]}?" if close else ""))
    if first["type"] == "missing":
        return UsageError(f"{name or 'a body'} is missing")
    shown = repr(given) if isinstance(given, (str, int, float)) else f"a {type(given).__name__}"
    shown = shown if len(shown) < 80 else f"{shown[:77]}…"
    return UsageError(f"{name + ' is ' if name else ''}{shown}; {first['msg']}")
