"""The query language: what each rule of its docstring means, where errors point, and that nothing else happens."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmsearch.core.errors import UsageError
from mmsearch.filters import (
    After,
    Before,
    CameraFilter,
    Comparison,
    DurationFilter,
    Filter,
    FolderFilter,
    LensFilter,
    NearFilter,
    PathFilter,
    SizeFilter,
    TypeFilter,
    to_sql,
)
from mmsearch.query.language import (
    KEYS,
    ParsedQuery,
    QueryError,
    complete,
    format_filter,
    format_query,
    parse_query,
)


def only_filter(query: str) -> Filter:
    parsed = parse_query(query)
    assert parsed == ParsedQuery(filters=parsed.filters) and len(parsed.filters) == 1
    return parsed.filters[0]


def test_the_example_of_the_documentation() -> None:
    query = (
        "mountain lake -people type:image after:2021 before:2023-06 path:holiday/* near:46.5,7.9,20km "
        'camera:"X100" size:>2mp "exact words"'
    )
    assert parse_query(query) == ParsedQuery(
        text="mountain lake",
        excluded=("people",),
        exact=("exact words",),
        filters=(
            TypeFilter(("image",)),
            After(datetime(2021, 1, 1)),
            Before(datetime(2023, 6, 1)),
            PathFilter("holiday/*"),
            NearFilter(46.5, 7.9, 20.0),
            CameraFilter("X100"),
            SizeFilter("pixels", Comparison(">", 2_000_000.0)),
        ),
    )


@pytest.mark.parametrize(
    "words",
    [
        "mountain lake",
        "black-and-white x-ray",
        "a - b",
        "-- -> -_-",
        ":-) :D xD: ;-)",
        "12:30 16:9",
        "C:\\Photos",
        "note: this",
        "http://example.org/a?b=c file:///x",
        "std::map",
        "¯\\_(ツ)_/¯",
        '12" vinyl',
        "5'10\"",
        "3d:printer größe:x ſize:x a:b",
        "[ab]*",
        "\\",
    ],
)
def test_what_people_write_is_searchable(words: str) -> None:
    assert parse_query(words) == ParsedQuery(text=words)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ParsedQuery()),
        (" \t\n", ParsedQuery()),
        ("  two \u00a0 words ", ParsedQuery(text="two words")),
        ("a -b c", ParsedQuery(text="a c", excluded=("b",))),
        ('-"two  words" x', ParsedQuery(text="x", excluded=("two words",))),
        ('"one" "two three"', ParsedQuery(exact=("one", "two three"))),
        ('"say \\"hi\\" \\\\ now"', ParsedQuery(exact=('say "hi" \\ now',))),
        ('"type:image"', ParsedQuery(exact=("type:image",))),
        ("\\-5 \\\"x", ParsedQuery(text='-5 "x')),
        ("-5", ParsedQuery(excluded=("5",))),
        ("-🐶", ParsedQuery(excluded=("🐶",))),
        ("foo\\:bar type\\:image", ParsedQuery(text="foo:bar type:image")),
        ("-foo\\:bar", ParsedQuery(excluded=("foo:bar",))),
        ("-http://x.org", ParsedQuery(excluded=("http://x.org",))),
        ('"a"b', ParsedQuery(text="b", exact=("a",))),
    ],
)  # fmt: skip
def test_words_phrases_and_exclusions(query: str, expected: ParsedQuery) -> None:
    assert parse_query(query) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("type:image,text", TypeFilter(("image", "text"))),
        ("TYPE:Video", TypeFilter(("video",))),
        ("-type:video", TypeFilter(("video",), negated=True)),
        ("after:2021-07", After(datetime(2021, 7, 1))),
        ("after:2021-7-3", After(datetime(2021, 7, 3))),
        ("before:2021-07-03T12:30", Before(datetime(2021, 7, 3, 12, 30))),
        ('-before:"2021-07-03 12:30:01"', Before(datetime(2021, 7, 3, 12, 30, 1), negated=True)),
        ('path:"my photos"/*', PathFilter("my photos/*")),
        ("path:my\\ photos/*", PathFilter("my photos/*")),
        ("path:\\*.jpg", PathFilter("\\*.jpg")),
        ('path:"\\*.jpg"', PathFilter("\\*.jpg")),
        ("path:a\\b", PathFilter("a\\\\b")),
        ("path:a\\\\*", PathFilter("a\\\\*")),
        ("-path:x/*", PathFilter("x/*", negated=True)),
        ("folder:/2021/holiday", FolderFilter("/2021/holiday")),
        ("near:-33.9,+151.2,500m", NearFilter(-33.9, 151.2, 0.5)),
        ('near:"0, 0, 1 km"', None),
        ('near:"0, 0, 1mi"', NearFilter(0, 0, 1.609344)),
        ('camera:"Canon EOS"', CameraFilter("Canon EOS")),
        ("camera:50:mm\\\"", CameraFilter('50:mm"')),
        ("lens:35mm", LensFilter("35mm")),
        ("size:<=1.5MB", SizeFilter("bytes", Comparison("<=", 1_500_000))),
        ("size:>1kib", SizeFilter("bytes", Comparison(">", 1024))),
        ("size:1..5mp", SizeFilter("pixels", Comparison("..", 1e6, 5e6))),
        ("size:500kb..1.5gb", SizeFilter("bytes", Comparison("..", 5e5, 1.5e9))),
        ("size:=4000px", SizeFilter("long_side", Comparison("=", 4000))),
        ("size:>0.29mp", SizeFilter("pixels", Comparison(">", 290_000))),
        ("duration:>30s", DurationFilter(Comparison(">", 30))),
        ("duration:1.5m..2h", DurationFilter(Comparison("..", 90, 7200))),
        ("duration:<1min", DurationFilter(Comparison("<", 60))),
    ],
)  # fmt: skip
def test_filters(query: str, expected: Filter | None) -> None:
    if expected is None:
        with pytest.raises(QueryError):
            parse_query(query)
    else:
        assert only_filter(query) == expected


@pytest.mark.parametrize(
    ("query", "at", "says"),
    [
        ("lake tpye:image", "tpye", "did you mean type:"),
        ("lake -tpye:image", "tpye", r"tpye\\:"),
        ("qqqq:image", "qqqq", "the filters are type, after"),
        ("type:", ":", "needs a value, as in type:image,video"),
        ("type: image", ": ", "needs a value"),
        ('camera:""', ":", "needs a value"),
        ('camera:" "', ' "', "needs a value"),
        ("type:image,vidoe x", "vidoe", '"vidoe"; expected image, video, text'),
        ("type:image,,video", ",video", "missing"),
        ("after:2021-13", "2021", "month must be in"),
        ("after:soon", "soon", "write 2021"),
        ("after:2021-07-03T12:30Z", "2021", "no zone"),
        ("after:0000", "0000", "year"),
        ("path://", "//", "names nothing"),
        ("near:1,2", "1,2", "2 parts"),
        ("near:1,x,3km", "x", "no coordinate"),
        ("near:1,2,3", "3", "km, m or mi"),
        ("near:1,2,3ft", "3ft", "km, m or mi"),
        ("near:91,0,1km", "91", "from -90 to 90"),
        ("near:1,2,0km", "1,2", "more than 0"),
        ("size:2mp", "2mp", "size:>2mp"),
        ("size:>2", "2", "unit is missing"),
        ("size:>2ft", "ft", "unknown unit"),
        ("size:1mp..2kb", "kb", "different things"),
        ("size:2mp..1mp", "2mp", "smaller number first"),
        ("size:>1" + "0" * 400 + "mp", ">1", "out of range"),
        ("duration:>2mp", "mp", "expected one of s, m"),
        ('a "b c', '"b', "never closed"),
        ('path:"a b', '"a', "never closed"),
        ('x -""', '""', "nothing between"),
        ("x \udcff", "\udcff", "not valid Unicode"),
        ("-\\ ", "-", "nothing to exclude"),
        ("山湖 tpye:x", "tpye", "type:"),
    ],
)
def test_errors_say_where_and_why(query: str, at: str, says: str) -> None:
    with pytest.raises(QueryError, match=says) as caught:
        parse_query(query)
    assert caught.value.position == query.index(at)
    assert caught.value.query == query
    assert isinstance(caught.value, UsageError)


def test_the_caret_stands_under_the_character() -> None:
    def shown(query: str) -> list[str]:
        with pytest.raises(QueryError) as caught:
            parse_query(query)
        return str(caught.value).splitlines()[1:]

    assert shown("lake tpye:image") == ["  lake tpye:image", "       ^"]
    assert shown("山湖 tpye:x") == ["  山湖 tpye:x", "       ^"], "wide characters take two columns"
    assert shown("a\n\tb tpye:x") == ["  a  b tpye:x", "       ^"]
    line, caret = shown("x" * 300 + " tpye:image " + "y" * 300)
    assert len(line) < 110 and line[caret.index("^")] == "t"


# ---- any text at all

alphabet = st.sampled_from(list('ab1 \t\\"-:,*?./><=é山\u0301\u2028\x00\ud800🐶')) | st.characters()
odd_values = ["2021-02-30", "1e5", "..", "99999999999999999999gb", ">=", "nan", "-0", "0.000001m", "٣", "K", "ſ"]
beginnings = [*(f"{key}:" for key in KEYS), "-", '"', "\\", " ", "foo:", "http://"]
snippets = st.sampled_from([*beginnings, *odd_values, *(key.example for key in KEYS.values())])
queries = st.lists(snippets | st.text(alphabet, max_size=6), max_size=8).map("".join)


@settings(max_examples=1000, deadline=None)
@given(queries)
@example("size:>0." + "0" * 500 + "1mp")
@example("near:1,2," + "9" * 500 + "km")
@example('path:\\\\" \\*"')
@example('\\-\\x -\\\\y \\""')
def test_any_text_is_read_or_refused_and_survives_rewriting(query: str) -> None:
    try:
        parsed = parse_query(query)
    except QueryError as error:
        assert 0 <= error.position < len(query)
        assert error.query == query
        assert len(str(error).splitlines()) >= 3
        return
    written = format_query(parsed)
    assert parse_query(written) == parsed
    assert format_query(parse_query(written)) == written


plain_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
phrases = plain_text.map(lambda text: " ".join(text.split())).filter(bool)
some_text = plain_text.filter(lambda text: text.strip() != "")
numbers = st.floats(0, 1e18) | st.integers(0, 10**9).map(float)
comparisons = st.builds(Comparison, st.sampled_from(["<", "<=", "=", ">=", ">"]), numbers) | st.tuples(
    numbers, numbers
).map(lambda ends: Comparison("..", min(ends), max(ends)))
seconds = st.datetimes().map(lambda moment: moment.replace(microsecond=0))
any_filter = st.one_of(
    st.lists(st.sampled_from(["image", "video", "text"]), min_size=1).map(lambda names: TypeFilter(tuple(names))),
    st.builds(After, seconds),
    st.builds(Before, seconds),
    st.builds(
        NearFilter,
        st.floats(-90, 90),
        st.floats(-180, 180),
        st.floats(0, 1e18, exclude_min=True) | st.sampled_from([0.1, 5e-324]),
    ),
    st.builds(CameraFilter, some_text),
    st.builds(LensFilter, some_text),
    st.builds(SizeFilter, st.sampled_from(["bytes", "pixels", "long_side"]), comparisons),
    st.builds(DurationFilter, comparisons),
)


@settings(max_examples=500, deadline=None)
@given(
    words=st.lists(phrases, max_size=3),
    excluded=st.lists(phrases, max_size=2),
    exact=st.lists(phrases, max_size=2),
    filters=st.lists(st.tuples(any_filter, st.booleans()), max_size=3),
)
def test_every_query_can_be_written(
    words: list[str], excluded: list[str], exact: list[str], filters: list[tuple[Filter, bool]]
) -> None:
    every = tuple(replace(one, negated=negated) for one, negated in filters)
    query = ParsedQuery(" ".join(words), tuple(excluded), tuple(exact), every)
    assert parse_query(format_query(query)) == query


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from('ab*?\\/" :'), min_size=1, max_size=8))
def test_every_pattern_can_be_written(pattern: str) -> None:
    """Superfluous backslashes may go, so the conditions are compared, not the patterns."""
    try:
        one = PathFilter(pattern)
    except UsageError:
        assert not pattern.replace("\\", "").replace("/", "").strip()
        return
    assert to_sql([only_filter(format_filter(one))]) == to_sql([one])


def test_the_canonical_form() -> None:
    query = '"b c" -d type:image lake after:2021-01 size:>2000kb near:1.0,2,1mi -path:"x y/*" -"e f"'
    assert format_query(parse_query(query)) == (
        'lake "b c" -d -"e f" type:image after:2021-01-01 size:>2mb near:1,2,1.609344km -path:"x y/*"'
    )
    assert format_filter(SizeFilter("bytes", Comparison("..", 500, 2048), negated=True)) == "-size:500b..2048b"
    assert format_filter(only_filter("size:>0.1mp")) == "size:>0.1mp"


# ---- completion and the table of keys


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", [f"{key}:" for key in KEYS]),
        ("ty", ["type:"]),
        ("mountain la", []),
        ("mountain  Le", ["mountain  lens:"]),
        ("-ca", ["-camera:"]),
        ("x type:", ["x type:image", "x type:video", "x type:text"]),
        ("type:image,v", ["type:image,video"]),
        ("-type:T", ["-type:text"]),
        ("type:image,", ["type:image,video", "type:image,text"]),
        ("path:ho", []),
        ('"ty', []),
        ('"mountain ty', []),
        ("foo:bar ty", []),
    ],
)
def test_completion(prefix: str, expected: list[str]) -> None:
    assert complete(prefix) == expected


@settings(max_examples=300, deadline=None)
@given(queries)
def test_completion_survives_any_text(prefix: str) -> None:
    for whole in complete(prefix):
        assert len(whole) >= len(prefix)


@pytest.mark.parametrize("key", KEYS)
def test_the_example_of_every_key_is_read_as_that_key(key: str) -> None:
    assert format_filter(only_filter(KEYS[key].example)).startswith(f"{key}:")


def test_every_filter_has_a_key() -> None:
    assert {type(only_filter(key.example)) for key in KEYS.values()} == set(Filter.__subclasses__())
