"""Encoders and rerankers of others: by module:Class, by entry point, and what is said when they are wrong."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mmsearch
from mmsearch import Encoder, EncoderOptions, EncoderSpec, Index, Reranker, RerankerSpec, open_encoder
from mmsearch.core.errors import EncoderError, ModelMissing
from mmsearch.models.encoders.base import EncoderFamily
from mmsearch.models.encoders.registry import ENCODERS, canonical_name, is_present
from mmsearch.models.rerankers import open_reranker
from mmsearch.models.rerankers.registry import RERANKERS, looks_like_a_name
from tests.support.colours import COLOURS, save_colour

PAGE = (Path(__file__).parents[2] / "docs" / "own_models.md").read_text()
CODE = {name: code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) for name in [code.split()[1]]}
BROKEN = """
    from mmsearch import Encoder, EncoderOptions, EncoderSpec, MmsearchError
    from mmsearch.models.encoders.base import EncoderFamily

    number = 3

    class Half(Encoder):
        def prepare_image(self, image): ...
        def encode_prepared(self, inputs): ...

    class Whole(Half):
        input_size, max_text_tokens = 8, 8
        def encode_texts(self, texts): ...
        def count_tokens(self, text): return 1

    class Failing(Whole):
        def __init__(self): raise ValueError("no such file")

    class Refusing(Whole):
        def __init__(self): raise MmsearchError("the weights are on the other machine")

    class WrongSpec(Whole):
        spec = "colours"

    class Takes(Whole):
        def __init__(self, options):
            self.spec = EncoderSpec("takes", "x", 2, "none")
            self.batch_size = options.batch_size
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory with modules of somebody's own, none of which is on Python's path."""
    for name, code in CODE.items():
        (tmp_path / name).write_text(code)
    (tmp_path / "broken_models.py").write_text(textwrap.dedent(BROKEN))
    (tmp_path / "dies.py").write_text("import nothing_of_that_name\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    before = set(sys.modules)
    importlib.invalidate_caches()
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def test_the_page_shows_modules() -> None:
    assert set(CODE) == {"my_encoders.py", "my_rerankers.py", "my_stores.py", "with_a_store.py"}


@pytest.mark.parametrize("base", [Encoder, Reranker])
def test_the_example_in_the_docstring_works(base: Any) -> None:
    text = inspect.getdoc(base) or ""
    example = textwrap.dedent(text[text.index("class Brightness") - 4 :].split("\n\n``mmsearch", 1)[0])
    names = {"np": np, **{name: getattr(mmsearch, name) for name in mmsearch.__all__ if name != "__version__"}}
    exec(compile(example, "docstring", "exec"), names)
    made = names["Brightness"]()
    pictures = [Image.new("RGB", (20, 20), (level, level, level)) for level in (250, 5)]
    if base is Encoder:
        rows, texts = made.encode_images(pictures), made.encode_texts(["a bright room", "night"])
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
        assert (texts @ rows.T).argmax(axis=1).tolist() == [0, 1]
        assert made.encode_images([]).shape == (0, 2) == made.encode_texts([]).shape
    else:
        assert made.score("a bright room", pictures).argmax() == 0 == made.score("night", pictures).argmin()


def test_an_own_encoder_opens_by_its_name(here: Path) -> None:
    name = "my_encoders:ColourEncoder"
    assert canonical_name(name) == name and is_present(name)
    encoder = open_encoder(name)
    assert encoder.spec.name == name and encoder.encode_texts([]).shape == (0, 4)
    assert open_encoder(name + "+views").spec.name == name + "+views"


def test_an_own_encoder_from_the_command_line(here: Path) -> None:
    for number, colour in enumerate(("red", "green", "blue", "black")):
        save_colour(here / "photos" / f"{colour}.png", colour, seed=number)
    environment = {
        **os.environ, "MMSEARCH_HOME": str(here / "home"), "PYTHONPATH": str(Path(mmsearch.__file__).parents[1])
    }  # fmt: skip
    program = "import sys; sys.path.pop(0); from mmsearch.cli import main; main()"  # as the installed script has it

    def run(*words: str, cwd: Path = here) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, *words]
        return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)

    made = run("index", "photos", "--index", "./colours", "--model", "my_encoders:ColourEncoder")
    assert made.returncode == 0, made.stderr
    manifest = json.loads((here / "colours" / "manifest.json").read_text())
    assert manifest["model"] == "my_encoders:ColourEncoder"
    for extra in ([], ["--rerank", "my_rerankers:Brightness"]):
        asked = run("query", *extra, "green", "--index", "./colours", "--json")
        assert asked.returncode == 0, asked.stderr
        first = next(row for row in map(json.loads, asked.stdout.splitlines()) if "path" in row)
        assert Path(first["path"]).stem == ("black" if extra else "green")
    (here / "elsewhere").mkdir()
    lost = run("query", "green", "--index", "../colours", cwd=here / "elsewhere")
    assert lost.returncode == 2 and "there is no module my_encoders for my_encoders:ColourEncoder" in lost.stderr
    assert "Traceback" not in lost.stderr and lost.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module:Encoder", r"there is no module no_such_module for no_such_module:Encoder: neither among"),
        ("my_encoders.inner:X", r"there is no module my_encoders.inner"),
        ("dies:Encoder", r"the module dies cannot be imported: ModuleNotFoundError: No module named 'nothing_of"),
        ("my_encoders:Colours", r"\(.*my_encoders\.py\) has no class Colours; it has ColourEncoder"),
        ("broken_models:number", r"is of the type int that is not derived from mmsearch\.Encoder; it has Half"),
        ("broken_models:MmsearchError", r"is a class that is not derived from mmsearch\.Encoder"),
        ("broken_models:Half", r"broken_models:Half does not implement count_tokens, encode_texts"),
        ("broken_models:Whole", r"broken_models:Whole sets no spec"),
        ("broken_models:WrongSpec", r"the spec of broken_models:WrongSpec is of the type str; expected an EncoderSpec"),
        ("broken_models:Failing", r"broken_models:Failing cannot be opened: ValueError: no such file"),
        ("json:dumps", r"is of the type function that is not derived"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(name: str, said: str, here: Path) -> None:
    with pytest.raises(EncoderError, match=said) as raised:
        open_encoder(name)
    assert "\n" not in str(raised.value)
    with pytest.raises(EncoderError):
        open_reranker(name)


def test_its_own_errors_and_options_pass(here: Path) -> None:
    with pytest.raises(mmsearch.MmsearchError, match=r"^the weights are on the other machine$"):
        open_encoder("broken_models:Refusing")
    assert open_encoder("broken_models:Takes", EncoderOptions(batch_size=3)).batch_size == 3


def test_an_own_reranker(here: Path) -> None:
    with Index.open(here / "index", create=True, encoder="my_encoders:ColourEncoder") as index:
        index.add([save_colour(here / "photos" / f"{colour}.png", colour) for colour in COLOURS])
        for text, places in (("bright", slice(None, 3)), ("night", slice(-3, None))):
            hits = index.search(text, k=8, reranker="my_rerankers:Brightness")
            assert "white" in [Path(hit.path).stem for hit in hits][places]


@pytest.mark.parametrize(
    ("word", "is_one"),
    [("my_rerankers:Brightness", True), ("a.b:C", True), ("kind:photo", False), ("camera:Canon", False),
     ("a sunset: Rome", False), ("sunset", False), ("my_rerankers:brightness", False)],
)  # fmt: skip
def test_a_filter_is_not_taken_for_a_reranker(word: str, is_one: bool, here: Path) -> None:
    assert looks_like_a_name(word) is is_one


class OneColour(Encoder):
    """What a package would bring."""

    input_size, max_text_tokens = 8, 8

    def __init__(self, name: str = "one") -> None:
        self.spec = EncoderSpec(name, "one", 2, "none")

    def prepare_image(self, image: Image.Image) -> np.ndarray:
        return np.zeros(1)

    def encode_prepared(self, inputs: np.ndarray) -> np.ndarray:
        return np.tile(np.array([1, 0], np.float32), (len(inputs), 1))

    def encode_texts(self, texts: Any) -> np.ndarray:
        return self.encode_prepared(np.zeros(len(texts)))

    def count_tokens(self, text: str) -> int:
        return 1


class Family(EncoderFamily):
    def canonical(self, name: str) -> str:
        return name.lower()

    def check(self, name: str) -> None:
        if name != "acme:large":
            raise ModelMissing(f"{name} is not here")

    def open(self, name: str, options: EncoderOptions, *, texts_only: bool = False) -> Encoder:
        return OneColour(name)


class Constant(Reranker):
    def __init__(self, encoder: Encoder | None) -> None:
        self.spec = RerankerSpec("constant" if encoder is None else encoder.spec.name, "c", (1,))

    def prepare_image(self, image: Image.Image) -> np.ndarray:
        return np.zeros(1)

    def tokens_of_prepared(self, inputs: np.ndarray) -> np.ndarray:
        return np.zeros((len(inputs), 1), np.float16)

    def score_tokens(self, text: str, tokens: np.ndarray) -> np.ndarray:
        return np.zeros(len(tokens), np.float32)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with entry points, as pip would leave it."""
    folder = tmp_path / "site"
    info = folder / "acme-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    here = "tests.models.test_own_models"
    (info / "entry_points.txt").write_text(
        f"[mmsearch.encoders]\nacme = {here}:Family\nsingle = {here}:OneColour\nwrong = {here}:PAGE\n"
        f"gone = no_such_module:X\n[mmsearch.rerankers]\nconstant = {here}:Constant\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    rows = [(registry, dict(registry._rows)) for registry in (ENCODERS, RERANKERS)]
    for registry, _ in rows:
        registry.__dict__.pop("_installed", None)
    yield
    for registry, before in rows:
        registry.__dict__.pop("_installed", None)
        registry._rows.clear()
        registry._rows.update(before)


def test_what_an_installed_package_brings(installed: None) -> None:
    assert open_encoder("single").spec.name == "one"
    assert canonical_name("acme:Large") == "acme:large" and is_present("acme:LARGE") and not is_present("acme:small")
    assert open_encoder("acme:Large").spec.name == "acme:large"
    assert looks_like_a_name("constant") and open_reranker("constant").spec.name == "constant"
    assert open_reranker("constant", None, OneColour()).spec.name == "one"
    with pytest.raises(EncoderError, match=r"the entry point wrong of mmsearch\.encoders is of the type str"):
        open_encoder("wrong")
    with pytest.raises(EncoderError, match=r"gone .*cannot be loaded"):
        open_encoder("gone")
