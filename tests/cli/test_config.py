"""Defaults in a file: what is stronger than what, what may be set, and what is said of mistakes."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from mmsearch.cli import app
from mmsearch.cli.config import commands_of, config_file, default_map, options_of, settings
from mmsearch.core.errors import UsageError
from tests.support.colours import save_colour
from tests.support.program import Ended
from tests.support.program import run_program as run

GROUP: Any = get_command(app)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    for number, name in enumerate(("red", "green", "blue", "yellow")):
        save_colour(folder / "photos" / f"{name}.png", name, seed=number)
    run("index", folder / "photos", home=folder)
    run("index", folder / "photos" / "red.png", "--index", "other", home=folder)
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings" / "config.toml"


def mmsearch(*words: str | Path, home: Path, file: Path | str, code: int = 0, **environment: str) -> Ended:
    return run(*words, home=home, code=code, MMSEARCH_CONFIG=str(file), **environment)


def found(*words: str, home: Path, file: Path | str, **environment: str) -> int:
    done = mmsearch("query", "something red", "--paths", "--all", *words, home=home, file=file, **environment)
    return len(done.stdout.splitlines())


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(home: Path, file: Path) -> None:
    assert found(home=home, file=file) == 4
    mmsearch("config", "set", "query.k", "2", home=home, file=file)
    assert found(home=home, file=file) == 2 and found("-k", "3", home=home, file=file) == 3
    mmsearch("config", "set", "index", "other", home=home, file=file)
    assert found(home=home, file=file) == 1
    assert found(home=home, file=file, MMSEARCH_INDEX="default") == 2
    assert found("--index", "other", home=home, file=file, MMSEARCH_INDEX="default") == 1
    mmsearch("config", "set", "query.index", "default", home=home, file=file)  # what is said of one command wins
    assert found(home=home, file=file) == 2
    assert "1 images" in mmsearch("status", home=home, file=file).stdout
    mmsearch("config", "unset", "query.index", home=home, file=file)
    assert found(home=home, file=file) == 1
    assert found(home=home, file="") == 4, "an empty MMSEARCH_CONFIG stands for no file"


def test_it_shows_what_is_set_and_where(home: Path, file: Path) -> None:
    shown = mmsearch("config", home=home, file=file).stdout
    assert str(file) in shown and "not there yet" in shown
    for words in (
        ("index", "other"),
        ("query.strict", "true"),
        ("index.exclude", "*.tmp", "a b"),
        ("serve.token", "x"),
    ):
        mmsearch("config", "set", *words, home=home, file=file)
    shown = mmsearch("config", home=home, file=file, MMSEARCH_INDEX="default", MMSEARCH_TOKEN="hush").stdout
    assert 'all.index = "other"   (but MMSEARCH_INDEX is set in the environment)' in shown
    assert "query.strict = true" in shown and 'index.exclude = ["*.tmp", "a b"]' in shown
    assert "hush" not in shown and '"x"' not in shown and "MMSEARCH_TOKEN = (a secret)" in shown
    lines = mmsearch("config", "--json", home=home, file=file, MMSEARCH_STORE="default").stdout.splitlines()
    rows = {row["key"]: row for row in map(json.loads, lines)}
    assert rows["all.index"]["overridden_by"] == "MMSEARCH_STORE" and rows["all.index"]["file"] == str(file)
    assert rows["index.exclude"]["value"] == ["*.tmp", "a b"] and rows["MMSEARCH_HOME"]["source"] == "environment"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_comments_and_links_stay(home: Path, file: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.toml").write_text("# mine\n[query]\nk = 5  # enough\n\n[serve]\nport = 9000\n")
    file.parent.mkdir()
    file.symlink_to(tmp_path / "kept.toml")
    mmsearch("config", "set", "query.k", "6", home=home, file=file)
    mmsearch("config", "set", "models.index", "other", home=home, file=file)
    mmsearch("config", "unset", "serve.port", home=home, file=file)
    text = (tmp_path / "kept.toml").read_text()
    assert file.is_symlink() and text.startswith("# mine\n[query]\nk = 6  # enough\n") and "9000" not in text
    assert "[models]" in text and [path.name for path in tmp_path.glob(".config-*")] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("set", "query.kk", "3"), "did you mean k?"),
        (("set", "qurey.k", "3"), "there is no command qurey: did you mean query?"),
        (("set", "query.k", "0"), "query.k cannot be '0'"),
        (("set", "query.k", "many"), "query.k cannot be 'many'"),
        (("set", "query.min-relevance", "2"), "query.min-relevance cannot be '2'"),
        (("set", "query.rerank-budget", "soon"), "write for instance 1s"),
        (("set", "query.modality", "picture"), "query.modality cannot be"),
        (("set", "query.language", "deutsch!"), "write its code"),
        (("set", "query.k"), "mmsearch config set query.k VALUE"),
        (("set", "query.k", "1", "2"), "takes one value"),
        (("set", "index.forget-missing", "true"), "no option forget-missing to keep"),
        (("set", "verify.mend", "true"), "no option mend to keep"),
        (("set", "query.text", "cat"), "no option text to keep"),
        (("unset", "query.k"), "is not set in"),
        (("unset", "query.kk"), "did you mean k?"),
    ],
)
def test_mistakes_on_the_command_line(words: tuple[str, ...], said: str, home: Path, file: Path) -> None:
    assert said in mmsearch("config", *words, home=home, file=file, code=2).stderr
    assert not file.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("k = 5", "stands in no table"),
        ("[query]\nkk = 5", "did you mean k?"),
        ("[quer]\nk = 5", "did you mean query?"),
        ("[query]\nk = 0", "query.k cannot be 0"),
        ("[query]\nk = 'x'", "query.k cannot be 'x'"),
        ("[query]\nk = {}", "there is no command query k"),
        ("[all]\nk = []", "all.k cannot be []"),
        ("[models.pul]\nname = 'x'", "there is no command models pul"),
        ("[query", "is no TOML"),
        ("\xff", "is no TOML"),
    ],
)
def test_mistakes_in_the_file_name_it(text: str, said: str, home: Path, file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(text.encode("latin-1"))
    for words in (("query", "red"), ("config",)):
        error = mmsearch(*words, home=home, file=file, code=2).stderr
        assert said in error and str(file) in error and len(error.splitlines()) == 1
    assert "Usage" in mmsearch("help", "query", home=home, file=file).stdout, "help works all the same"
    assert "Usage" in mmsearch("--help", home=home, file=file).stdout


def test_what_is_no_file_is_refused(home: Path, tmp_path: Path) -> None:
    assert "cannot be read" in mmsearch("status", home=home, file=tmp_path, code=2).stderr
    assert "cannot be read" in mmsearch("status", home=home, file=Path("/dev/zero"), code=2).stderr


def test_where_the_file_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MMSEARCH_CONFIG", "~/x.toml")
    assert config_file() == Path("~/x.toml").expanduser()
    monkeypatch.setenv("MMSEARCH_CONFIG", "")
    assert config_file() is None
    monkeypatch.delenv("MMSEARCH_CONFIG")
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path))
    assert config_file() == tmp_path / "config.toml"
    monkeypatch.delenv("MMSEARCH_HOME")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert (config_file() or Path()).name == "config.toml"


def test_every_option_may_be_kept_and_no_name_is_there_twice() -> None:
    for words, command in commands_of(GROUP):
        names = [place.name for place in options_of(words, command)]
        assert len(names) == len(set(names)), words


VALUES = st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2))
OPTIONS = [(words, place.name) for words, command in commands_of(GROUP) for place in options_of(words, command)]


@given(st.sampled_from(OPTIONS), VALUES)
def test_any_value_is_taken_or_refused(option: tuple[tuple[str, ...], str], value: Any) -> None:
    (words, name), table = option, {}
    inner: Any = table
    for word in words:
        inner = inner.setdefault(word, {})
    inner[name] = value
    try:
        [setting] = settings(GROUP, table)
    except UsageError as error:
        assert ".".join((*words, name)) in str(error)
    else:
        assert setting.value == value or value != value


def test_without_a_file_nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MMSEARCH_CONFIG", str(tmp_path / "none.toml"))
    assert default_map(GROUP) == {}
