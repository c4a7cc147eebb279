"""Filters as expressions of Milvus, over the columns of `mmsearch.store.milvus.rows`.

Not everything can be said there: distances, wildcards, parts of a text where the server lacks infix matching. Such a
part becomes an expression that is true of more rows, so that its rows are checked one by one in the client; below a
``Not`` it becomes one that is true of fewer.

Milvus has no joins: what concerns several rows of a document (words in any of its passages) must be a set of documents
before it comes here, ``OneOf("document", ids)``; see `resolved`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mmsearch.core.errors import UsageError
from mmsearch.filters.paths import pattern_characters
from mmsearch.filters.tree import (
    EARTH_RADIUS_KM,
    And,
    Compare,
    Contains,
    Glob,
    Not,
    OneOf,
    Or,
    Phrase,
    Range,
    Spoken,
    Where,
    Within,
    nanoseconds_of,
    shortest_iso,
)
from mmsearch.store.milvus.rows import FOLDED, NOTHING, NUMBERS, TEXTS, fold, folded, nfc

ALWAYS, NEVER = "document >= 0", "document < 0"
_INT64 = 2**63 - 1
_LIKE = frozenset('%_\\"')


@dataclass(frozen=True)
class Rendered:
    """An expression; ``is_exact``: whether it is true of just the rows of which the filter is."""

    text: str
    is_exact: bool = True


def resolved(
    where: Where, having: Callable[[Phrase], frozenset[int]], saying: Callable[[Spoken], frozenset[int]]
) -> Where:
    """The same with what concerns several rows turned into sets of documents, which the functions give."""
    match where:
        case And(parts):
            return And(tuple(resolved(part, having, saying) for part in parts))
        case Or(parts):
            return Or(tuple(resolved(part, having, saying) for part in parts))
        case Not(OneOf("modality")):  # a video in which somebody speaks is still one
            return where
        case Not(part):
            return Not(resolved(part, having, saying))
        case OneOf("modality", values) if "speech" in values:
            return Or((where, Compare("speaks", "=", 1)))
        case Phrase():
            return OneOf("document", having(where))  # type: ignore[arg-type]
        case Spoken():
            return OneOf("document", saying(where))  # type: ignore[arg-type]
    return where


def render(where: Where, *, has_infix: bool, of_rows: bool = False) -> Rendered:
    """The expression of a `resolved` filter. ``of_rows``: the kinds that all of it demands are those of the segments
    themselves, not of their documents.
    """
    kinds: list[str] = []
    parts = where.parts if isinstance(where, And) else (where,)
    if of_rows:
        told = [part for part in parts if isinstance(part, OneOf) and part.field == "modality"]
        told += [one for part in parts if isinstance(part, Or) and (one := _speech_kinds(part)) is not None]
        kinds = [f"kind in {_list(one.values)}" for one in told]
        parts = tuple(
            part for part in parts
            if part not in told and not (isinstance(part, Or) and _speech_kinds(part) is not None)
        )  # fmt: skip
    is_exact = _Exactness()
    sides = [_text(part, has_infix, False, is_exact) for part in parts]
    return Rendered(_all([*kinds, *sides]), is_exact.holds)


def _speech_kinds(part: Or) -> OneOf | None:
    """What `resolved` made an ``Or`` of."""
    match part.parts:
        case (OneOf("modality") as kinds, Compare("speaks")):
            return kinds
    return None


class _Exactness:
    holds = True


def _text(where: Where, infix: bool, sure: bool, exact: _Exactness) -> str:
    """``sure``: true of no more rows than the filter is; else of no fewer."""

    def unsure(coarse: str) -> str:
        exact.holds = False
        return NEVER if sure else coarse

    match where:
        case And(parts):
            return _all([_text(part, infix, sure, exact) for part in parts])
        case Or(parts):
            return _any([_text(part, infix, sure, exact) for part in parts])
        case Not(part):
            return f"not ({_text(part, infix, not sure, exact)})"
        case Compare("date", operator, datetime() as moment):
            stamp = max(-_INT64, min(_INT64, nanoseconds_of(moment)))
            taken = f'(taken_at != "" and taken_at {_equals(operator)} {quoted(shortest_iso(moment))})'
            return f'({taken} or (taken_at == "" and mtime_ns {_equals(operator)} {stamp}))'
        case Compare("taken_at", operator, value):
            return f'(taken_at != "" and taken_at {_equals(operator)} {quoted(str(value))})'
        case Compare("mtime_ns", operator, value) if not isinstance(value, (str, datetime)):
            return f"mtime_ns {_equals(operator)} {round(value)}" if value == round(value) else unsure(ALWAYS)
        case Compare(field, operator, value) if field in NUMBERS and not isinstance(value, (str, datetime)):
            return f"({field} > {NOTHING / 10!r} and {field} {_equals(operator)} {float(value)!r})"
        case Range(field, low, high) if field in NUMBERS:
            return f"({field} > {NOTHING / 10!r} and {field} >= {float(low)!r} and {field} <= {float(high)!r})"
        case OneOf("document", values):
            return f"document in {json.dumps(sorted(values))}"
        case OneOf("modality", values):
            return f"modality in {_list(values)}"
        case OneOf("taken_at", values):
            return f"taken_at in {_list(values)}"
        case Contains(field, text) if field in FOLDED:
            return _contains(field, folded(text), infix, unsure)
        case Glob():
            return _glob(where, unsure)
        case Within():
            return unsure(_all(list(_box(where))))
        case Compare(field) | Range(field) | OneOf(field) | Contains(field):
            if field not in (*NUMBERS, *TEXTS, "mtime_ns", "taken_at"):
                raise UsageError(f"documents have no field {field}; there are {', '.join((*NUMBERS, *TEXTS))}")
            return unsure(ALWAYS)
    raise TypeError(f"{type(where).__name__} is no node of a filter")


def _equals(operator: str) -> str:
    return "==" if operator == "=" else operator


def _contains(field: str, text: str, infix: bool, unsure: Callable[[str], str]) -> str:
    if not text:
        return f'{field} != ""'
    if infix and not _LIKE & set(text):
        return f'{field} like "%{text}%"'
    return unsure(f'{field} != ""')


def _glob(glob: Glob, unsure: Callable[[str], str]) -> str:
    """Exact where names without wildcards say all; else by the names that have none."""
    names = [_literal(name) for name in glob.names]
    if glob.of == ("path",) and not glob.ignore_case:
        fixed = [name for name in names if name is not None]
        if len(fixed) == len(names):
            whole = quoted("/".join(fixed))
            below = f" or {beginning_with('name', '/'.join(fixed) + '/')}" if glob.below else ""
            return f"(name == {whole}{below})"
        if glob.names[-1] == "**" and len(fixed) == len(names) - 1 and fixed:
            return beginning_with("name", "/".join(fixed) + "/")
    # A name anywhere, which is what most filters of paths are: ``**/name`` and below it, or folders of that name.
    match (glob.names, names):
        case (("**", _), (None, str() as name)) if glob.below and not glob.ignore_case and glob.of == ("path", "named"):
            return has_token("n" + name)
        case (("**", _, "**"), (None, str() as name, None)) if glob.ignore_case and glob.of == ("path", "named"):
            return has_token("d" + fold(name))
    tests = []
    if "absolute" not in glob.of:
        for name in dict.fromkeys(name for name in names if name is not None):
            tests.append(has_token("f" + fold(name)) if glob.ignore_case else has_token("n" + name))
    elif glob.of == ("absolute",) and not glob.ignore_case and names[0] is not None:
        first = next((at for at, name in enumerate(names) if name is None), len(names))
        tests.append(beginning_with("place", "/" + "/".join(str(name) for name in names[:first])))
    return unsure(_all(tests))


def _literal(pattern: str) -> str | None:
    """The one name that a pattern matches; ``None`` where it has wildcards."""
    characters = list(pattern_characters(pattern))
    if any(character in "*?" and not is_ordinary for character, is_ordinary in characters):
        return None
    return nfc("".join(character for character, _ in characters))


def has_token(token: str) -> str:
    """A row has a token; see `mmsearch.store.milvus.rows`."""
    return f"array_contains(tokens, {quoted(token)})"


def has_tokens(tokens: Sequence[str]) -> str:
    """A row has all of some tokens."""
    return f"array_contains_all(tokens, {_list(tuple(dict.fromkeys(tokens)))})"


def has_any_token(tokens: Sequence[str]) -> str:
    """A row has one of some tokens at least: one look at each row, where as many alternatives are as many looks."""
    return f"array_contains_any(tokens, {_list(tuple(dict.fromkeys(tokens)))})"


def beginning_with(field: str, beginning: str) -> str:
    """A text begins so. As bounds: ``like`` gives meaning to characters that paths have, and not every server can take
    it away from them.
    """
    return f"({field} >= {quoted(beginning)} and {field} < {quoted(beginning + chr(0x10FFFF))})"


def _box(circle: Within) -> list[str]:
    """Bounds that no point of the circle is outside of (law of sines where a meridian touches it)."""
    margin = 1e-4  # degrees, some ten metres: far more than rounding can take away
    angle = circle.radius_km / EARTH_RADIUS_KM
    south = circle.latitude - math.degrees(angle) - margin
    north = circle.latitude + math.degrees(angle) + margin
    sides = [f"latitude >= {max(south, -91.0)!r}", f"latitude <= {min(north, 91.0)!r}", "longitude >= -181.0"]
    ratio = 2.0 if south <= -90 or north >= 90 else math.sin(angle) / math.cos(math.radians(circle.latitude))
    if ratio >= 1:
        return sides
    width = math.degrees(math.asin(ratio)) + margin
    west, east = circle.longitude - width, circle.longitude + width
    if west >= -180 and east <= 180:
        return [*sides, f"longitude >= {west!r}", f"longitude <= {east!r}"]
    west, east = (west + 360, east) if west < -180 else (west, east - 360)
    return [*sides, f"(longitude >= {west!r} or longitude <= {east!r})"]


def quoted(text: str) -> str:
    """A text as a literal."""
    return json.dumps(text, ensure_ascii=False)


def _list(values: Sequence[Any]) -> str:
    return json.dumps(list(values), ensure_ascii=False)


def _all(parts: Sequence[str]) -> str:
    kept = [part for part in parts if part != ALWAYS]
    return ALWAYS if not kept else kept[0] if len(kept) == 1 else f"({_joined(' and ', kept)})"


def _any(parts: Sequence[str]) -> str:
    kept = [part for part in parts if part != NEVER]
    return NEVER if not kept else kept[0] if len(kept) == 1 else f"({_joined(' or ', kept)})"


def _joined(operator: str, parts: Sequence[str]) -> str:
    """Many parts in halves of halves: a chain is a tree that is as deep as it is long."""
    if len(parts) <= 32:
        return operator.join(parts)
    middle = len(parts) // 2
    return f"({_joined(operator, parts[:middle])}){operator}({_joined(operator, parts[middle:])})"


def joined(parts: Sequence[str]) -> str:
    """All of some expressions; an empty one says nothing."""
    return _all([part or ALWAYS for part in parts])


def any_of(parts: Sequence[str]) -> str:
    """At least one of some expressions."""
    return _any(parts)
