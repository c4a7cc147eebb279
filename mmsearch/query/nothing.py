"""Why a query found nothing: which of its conditions no document meets, in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mmsearch.core.types import Hit
from mmsearch.filters import And, Not, OneOf, Phrase, Where
from mmsearch.query.context import modalities_allowed
from mmsearch.query.options import SearchOptions
from mmsearch.query.question import Question
from mmsearch.store.base import Store

if TYPE_CHECKING:
    import pandas
    import pyarrow

UNREAD = "no name, caption or text has these words"
EMPTY = "the index is empty: fill it with `mmsearch index FOLDER`"


class Hits(list[Hit]):
    """The hits of a query, best first. ``reason``: where there are none, what is to blame, in a sentence."""

    def __init__(self, hits: Iterable[Hit] = (), reason: str | None = None) -> None:
        super().__init__(hits)
        self.reason = None if self else reason

    def to_arrow(self) -> pyarrow.Table:
        """A table of Arrow, a row a hit, with the columns of `mmsearch.query.tables.COLUMNS`; missing values are null.

        Raises:
            UsageError: pyarrow is not installed.
        """
        from mmsearch.query.tables import to_arrow

        return to_arrow(self)

    def to_pandas(self) -> pandas.DataFrame:
        """A data frame with the same columns; missing values are NA, NaN or None.

        Raises:
            UsageError: pandas is not installed.
        """
        from mmsearch.query.tables import to_pandas

        return to_pandas(self)


class _Condition(NamedTuple):
    shown: str
    where: Where
    unmet: Callable[[], str]
    is_unwritten: bool = False
    """Whether nobody wrote it: without ``type:``, pictures are looked for."""


def with_reasons(
    store: Store, questions: Sequence[Question], options: SearchOptions, results: Sequence[Hits]
) -> list[Hits]:
    """Results, of which the empty ones know their reason: what nothing meets, else what they knew already."""
    known: dict[object, str | None] = {}
    every = []
    for question, hits in zip(questions, results, strict=True):
        if not hits:
            conditions = question.filters, question.exact, question.excluded
            key = (*conditions, bool(question.texts), bool(question.images))
            if key not in known:
                known[key] = why_nothing(store, question, options)
            hits.reason = known[key] or hits.reason
        every.append(hits)
    return every


def why_nothing(store: Store, question: Question, options: SearchOptions) -> str | None:
    """Which condition nothing meets; ``None`` where some documents meet them all, and are not alike enough."""
    if not store.count():
        return EMPTY
    conditions = list(_conditions(store, question, options))
    alone = [one for one in conditions if not store.count(one.where)]
    if alone:
        return "; ".join(dict.fromkeys(one.unmet() for one in alone))
    if not conditions or store.count(And(tuple(one.where for one in conditions))):
        return None
    for one in list(conditions):  # what is not needed for there to be none is not to blame
        others = [other for other in conditions if other is not one]
        if len(others) > 1 and not store.count(And(tuple(other.where for other in others))):
            conditions = others
    *first, last = conditions
    written = ", ".join(one.shown for one in first)
    if last.is_unwritten:
        required = tuple(one.where for one in first)
        kinds = [kind for kind in sorted(store.modalities) if store.count(And((*required, OneOf("modality", (kind,)))))]
        if kinds:
            return f"no picture or video meets {written}: other files do, look for them with type:{','.join(kinds)}"
    return f"{written} and {last.shown} each meet files, together none"


def _conditions(store: Store, question: Question, options: SearchOptions) -> list[_Condition]:
    """All that a document must meet, as it was written where that is known."""
    found = []
    spelled = {id(one.where): one for one in question.spelled}
    for where in question.filters:
        one = spelled.get(id(where))
        if one is None:
            found.append(_Condition("a filter", where, lambda: "no file meets one of the filters"))
            continue
        shown = f"{'-' * one.negated}{one.key}:{one.value.text}"
        found.append(_Condition(shown, where, lambda one=one: one.unmet(store)))  # type: ignore[misc]
    for phrase in question.exact:
        sentence = f'no name, caption or text has "{phrase}" in it'
        found.append(_Condition(f'"{phrase}"', Phrase(phrase), lambda sentence=sentence: sentence))  # type: ignore[misc]
    for phrase in question.excluded:
        sentence = f'-"{phrase}" leaves out every file'
        found.append(_Condition(f'-"{phrase}"', Not(Phrase(phrase)), lambda sentence=sentence: sentence))  # type: ignore[misc]
    is_listing = not question.texts and not question.images
    kinds = modalities_allowed(question, options, store, is_listing=is_listing)
    if kinds is not None and question.modalities is None:
        names = " or ".join(kinds)
        there = " or ".join(sorted(store.modalities))
        sentence = f"there is no {names or 'image or video'} here: look for type:{there.replace(' or ', ',')}"
        of_kinds = OneOf("modality", kinds)
        found.append(_Condition(f"type:{','.join(kinds)}", of_kinds, lambda: sentence, options.modalities is None))
    return found
