"""Options on the command line: a parameter of a command whose type is a class of options stands for all its fields."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, get_args, get_origin

import typer
from typer.core import TyperCommand

from mmsearch.cli.completion import completion_of, index_names
from mmsearch.core.options import OptionField, Options, for_people, option_fields

IndexOption = Annotated[
    str,
    typer.Option(
        "--index", "--store", envvar=["MMSEARCH_INDEX", "MMSEARCH_STORE"],
        help="Name of an index in the data directory, a path to one, or the address SCHEME:REST of another store.",
        autocompletion=index_names,
    ),
]  # fmt: skip


class NeedsExtra(TyperCommand):
    """A command of an extra of `mmsearch.server`: its help says how to install that, where it is missing."""

    extra: ClassVar[str]

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """See click."""
        super().format_epilog(ctx, formatter)
        from mmsearch.core.extras import install_hint
        from mmsearch.server import has_extra

        if not has_extra(self.extra):
            formatter.write(f"\nNeeds an extra that is not installed:\n  {install_hint(self.extra)}\n")


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON Lines instead of text.")]


class Only(NamedTuple):
    """``Annotated[SomeOptions, Only("device")]``: of these options only the named fields."""

    names: tuple[str, ...]


def with_options(order: str = "") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes of a command what typer takes: for each parameter of a class of options, one parameter for each of its
    fields that has a flag. ``order``: names of parameters that the help lists first; the others follow as they stand.
    """
    return lambda command: _expanded(command, order.split())


def _expanded(command: Callable[..., None], order: Sequence[str]) -> Callable[..., None]:
    plain: list[inspect.Parameter] = []
    groups: dict[str, tuple[type[Options], dict[str, OptionField]]] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind, only = _options_of(parameter.annotation)
        if kind is None:
            plain.append(parameter)
            continue
        taken = {
            each.name: each for each in option_fields(kind) if each.option.flag and (not only or each.name in only)
        }
        groups[parameter.name] = (kind, taken)
        plain += [made for each in taken.values() for made in _parameters(each)]
    place = {name: number for number, name in enumerate(order)}
    plain.sort(key=lambda parameter: place.get(parameter.name, len(place)))

    def run(**values: Any) -> None:
        for name, (kind, taken) in groups.items():
            given = {each.name: value for each in taken.values() for value in _given(each, values)}
            values[name] = for_people(kind, given)
        command(**values)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature([p.replace(kind=p.KEYWORD_ONLY) for p in plain])  # type: ignore[attr-defined]
    run.__annotations__ = {}
    run.fields = {name: (kind, each) for kind, taken in groups.values() for name, each in taken.items()}  # type: ignore[attr-defined]
    return run


def _options_of(annotation: Any) -> tuple[type[Options] | None, Sequence[str]]:
    only: Sequence[str] = ()
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        only = next((each.names for each in more if isinstance(each, Only)), ())
    is_options = isinstance(annotation, type) and issubclass(annotation, Options)
    return (annotation if is_options else None), only


def _parameters(each: OptionField) -> Iterator[inspect.Parameter]:
    """The parameter of a field, and a hidden one of its old name."""
    o = each.option
    is_flag = each.type is bool or (each.has_switch and o.metavar is None)
    if is_flag:
        default: Any = each.shown if "/" in (o.flag or "") else False
        kind: Any = bool
    else:
        default = each.shown
        kind = str if o.read is not None and not each.many else each.type
        kind = list[kind] | None if each.many else kind | None if default is None else kind
    has_bounds = each.type in (int, float) and not is_flag and o.read is None and o.above is None
    more: dict[str, Any] = {
        "metavar": o.metavar,
        "show_default": "/" in (o.flag or "") or (not is_flag and default is not None),
        **({"min": o.least, "max": o.most} if has_bounds else {}),
    }
    names = [(each.name, o.flag, False)] + ([(o.old, f"--{o.old.replace('_', '-')}", True)] if o.old else [])
    for name, flag, hidden in names:
        declared = typer.Option(
            *str(flag).split(), help=o.help, hidden=hidden, autocompletion=completion_of(each), **more
        )
        yield inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, declared]
        )


def _given(each: OptionField, values: dict[str, Any]) -> Iterator[Any]:
    """What was given for a field, taken out of ``values``; nothing where it was left out."""
    o = each.option
    value = values.pop(each.name)
    if o.old is not None:
        by_old_name = values.pop(o.old)
        if by_old_name is not None:
            print(f"mmsearch: --{o.old.replace('_', '-')} is called {o.flag} now", file=sys.stderr)
            value = by_old_name if value is None else value
    if each.has_switch and o.metavar is None:
        if value:
            yield o.switch
    elif each.type is bool:
        yield value if "/" in (o.flag or "") else each.shown != value
    elif value is not None and value != []:
        yield value
