"""The table of models, what is present on this machine, and pulling from a hub."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from mmsearch.core.errors import EncoderError, HubUnreachable, ModelMissing
from mmsearch.models.encoders import open_encoder, weights
from mmsearch.models.encoders.catalogue import SUGGESTED, list_models
from mmsearch.models.encoders.open_clip_files import hub_place, locate, recall_hub_place
from mmsearch.models.encoders.pull import PullProgress, pull_model
from mmsearch.models.encoders.registry import BUILTIN, canonical_name, is_present

CONFIG = b'{"model_cfg": {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {"hf_tokenizer_name": "acme/words"}}}'
WEIGHTS = bytes(range(256)) * 4096


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, so that nothing of this machine is seen."""
    monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path / "mmsearch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put_in_hub_cache(hub: Path, repo: str, **files: bytes) -> Path:
    """Lays files out as huggingface_hub does after a download."""
    folder = hub / ("models--" + repo.replace("/", "--"))
    snapshot = folder / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True, exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text("c" * 40)
    (folder / "blobs").mkdir(exist_ok=True)
    for name, content in files.items():
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / name.replace("__", ".")).symlink_to(blob)
    return snapshot


def test_every_row_is_what_open_clip_says():
    open_clip = pytest.importorskip("open_clip")
    rows = [row for row in list_models() if not row.name.startswith(BUILTIN)]
    assert len(rows) >= 8 and len({row.name for row in rows}) == len(rows)
    for row in rows:
        architecture, _, tag = row.name.rpartition("/")
        assert tag in open_clip.list_pretrained_tags_by_model(architecture), row.name
        config = open_clip.get_model_config(architecture)
        assert (row.dim, row.image_size) == (config["embed_dim"], config["vision_cfg"]["image_size"]), row.name
        assert open_clip.get_pretrained_cfg(architecture, tag)["hf_hub"] == f"{row.repo}/{row.filename}", row.name
        assert row.download_mb == pytest.approx(row.parameters_m * 4, rel=0.01), row.name
        assert row.licence and row.source


def test_rows_are_ordered_and_the_suggested_one_is_free_and_fast():
    rows = list_models()
    assert [row.image_gflops for row in rows] == sorted(row.image_gflops for row in rows)
    suggested = next(row for row in rows if row.name == SUGGESTED)
    assert suggested.speed == "fast" and suggested.licence == "Apache-2.0"
    assert rows[-1].speed == "GPU"


def test_presence_follows_the_cache(caches: Path):
    row = next(row for row in list_models() if row.name == SUGGESTED)
    assert not row.present and not is_present(SUGGESTED)
    assert is_present(BUILTIN)
    put_in_hub_cache(caches, row.repo, open_clip_pytorch_model__bin=b"old")
    assert locate(SUGGESTED).checkpoint.name == "open_clip_pytorch_model.bin"
    put_in_hub_cache(caches, row.repo, open_clip_model__safetensors=b"new")
    assert next(row.present for row in list_models() if row.name == SUGGESTED)
    local = locate(SUGGESTED)
    assert local.checkpoint.read_bytes() == b"new"
    assert local.digest == hashlib.sha256(b"new").hexdigest()


def test_the_cache_is_read_as_huggingface_hub_reads_it(caches: Path):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    put_in_hub_cache(caches, "acme/tiny", a__json=b"{}")
    for repo, name in [("acme/tiny", "a.json"), ("acme/tiny", "b.json"), ("acme/other", "a.json")]:
        theirs = huggingface_hub.try_to_load_from_cache(repo, name, cache_dir=caches)
        assert weights.hub_file(repo, name) == (Path(theirs) if isinstance(theirs, str) else None)


@pytest.mark.parametrize(
    "variables",
    [{}, {"HF_HOME": "/a/b"}, {"XDG_CACHE_HOME": "/a/c"}, {"HF_HUB_CACHE": "/a/d", "HF_HOME": "/a/b"},
     {"HUGGINGFACE_HUB_CACHE": "~/e"}],
)  # fmt: skip
def test_the_place_of_the_cache_is_that_of_huggingface_hub(variables: dict[str, str]):
    pytest.importorskip("huggingface_hub")
    code = (
        "from mmsearch.models.encoders.weights import hub_cache_dir; from huggingface_hub import constants;"
        "assert str(hub_cache_dir()) == constants.HF_HUB_CACHE, (hub_cache_dir(), constants.HF_HUB_CACHE)"
    )
    environment = {
        "PATH": "/usr/bin",
        "HOME": "/home/somebody",
        "PYTHONPATH": ":".join(sys.path),
        **variables,
    }
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; from mmsearch.models.encoders.catalogue import list_models; list_models();"
        "print([m for m in ('torch', 'open_clip', 'huggingface_hub', 'onnxruntime') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_missing_model_says_how_to_fetch_it():
    for name in (SUGGESTED, "hf-hub:acme/tiny"):
        with pytest.raises(ModelMissing, match=f"mmsearch models pull {name}"):
            locate(name)


def test_an_unknown_name_lists_similar_and_recommended_ones():
    with pytest.raises(EncoderError, match=r"ViT-B-32/laion2b_s34b_b79k.*recommended: builtin"):
        locate("ViT-B32/laion2b_s34b_b79")
    with pytest.raises(EncoderError, match=r"similar names: ViT-B-32/openai"):
        locate("ViT-B-32")
    with pytest.raises(EncoderError, match="no directory /no/such/place"):
        locate("/no/such/place")


def test_a_name_that_only_open_clip_knows_is_remembered():
    name = "ViT-B-16/datacomp_xl_s13b_b90k"
    assert recall_hub_place(name) is None
    assert hub_place(name) == ("laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K", "")
    assert recall_hub_place(name) == hub_place(name)


def test_one_spelling_for_each_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert canonical_name("model") == canonical_name("local-dir:./model") == f"local-dir:{tmp_path / 'model'}"
    assert canonical_name("ViT-B-32/Laion2B-s34B-b79K") == "ViT-B-32/laion2b_s34b_b79k"
    assert canonical_name("hf-hub:Acme/Tiny") == "hf-hub:Acme/Tiny"


def test_directories_that_are_no_models(tmp_path: Path):
    (tmp_path / "model").mkdir()
    with pytest.raises(EncoderError, match=r"holds no open_clip_config\.json"):
        locate(str(tmp_path / "model"))
    (tmp_path / "model" / "open_clip_config.json").write_bytes(CONFIG)
    with pytest.raises(ModelMissing, match="no weights"):
        locate(str(tmp_path / "model"))
    with pytest.raises(EncoderError, match="no directory"):
        locate("local-dir:" + str(tmp_path / "other"))


def test_the_digest_is_kept_and_follows_the_file(tmp_path: Path):
    path = tmp_path / "w.bin"
    path.write_bytes(b"one")
    assert weights.file_digest(path) == hashlib.sha256(b"one").hexdigest()
    kept = json.loads((weights.cache_dir() / "weights.json").read_text())
    assert kept[str(path.resolve())][2] == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"three")
    assert weights.file_digest(path) == hashlib.sha256(b"three").hexdigest()
    (weights.cache_dir() / "weights.json").write_text("{damaged")
    assert weights.file_digest(path) == hashlib.sha256(b"three").hexdigest()


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of a hub: the list of files, and the files themselves."""

    repositories: ClassVar[dict[str, dict[str, bytes]]] = {
        "acme/tiny": {
            "open_clip_config.json": CONFIG,
            "open_clip_model.safetensors": WEIGHTS,
            "README.md": b"hi",
        },
        "acme/words": {"tokenizer.json": b'{"model": {}}', "tokenizer_config.json": b"{}"},
        "acme/empty": {"README.md": b"hi"},
        "acme/clip": {
            "config.json": b'{"model_type": "clip"}',
            "model.safetensors": WEIGHTS,
            "pytorch_model.bin": WEIGHTS + b"same, in an older format",
            "preprocessor_config.json": b"{}",
            "tokenizer.json": b'{"model": 1}',
            "flax_model.msgpack": b"no",
            "README.md": b"hi",
        },
        "acme/parts": {
            "config.json": b"{}",
            "model-00001-of-00002.safetensors": b"1",
            "model-00002-of-00002.safetensors": b"2",
            "model.safetensors.index.json": json.dumps(
                {"weight_map": {letter: f"model-0000{n}-of-00002.safetensors" for n, letter in ((1, "a"), (2, "b"))}}
            ).encode(),
        },
    }
    asked: ClassVar[list[str]] = []
    broken = False

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *_: object) -> None: ...

    def _answer(self, body: bool) -> None:
        path = self.path.partition("?")[0].strip("/")
        repo, _, name = path.removeprefix("api/models/").partition("/resolve/main/")
        files = self.repositories.get(repo)
        headers = {"X-Repo-Commit": "d" * 40}
        status, content = 200, b""
        if self.broken and path:
            status = 500
        elif files is None:
            status, headers = 404, {"X-Error-Code": "RepoNotFound"} if path else {}
        elif path.startswith("api/"):
            siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
            content = json.dumps({"id": repo, "siblings": siblings}).encode()
        elif name in files:
            content = files[name]
            headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
            if body:
                self.asked.append(name)
        else:
            status, headers["X-Error-Code"] = 404, "EntryNotFound"
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(Hub, "asked", [])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Hub
    server.shutdown()
    thread.join()
    server.server_close()


def test_pull_fetches_all_that_opening_needs(hub: type[Hub], capfd: pytest.CaptureFixture[str]):
    seen: list[PullProgress] = []
    assert not is_present("hf-hub:acme/tiny")
    pull_model("hf-hub:acme/tiny", seen.append)
    local = locate("hf-hub:acme/tiny")
    assert local.checkpoint.read_bytes() == WEIGHTS
    assert local.digest == hashlib.sha256(WEIGHTS).hexdigest()
    assert weights.hub_file("acme/words", "tokenizer.json") is not None
    assert "README.md" not in hub.asked
    done = [step.done for step in seen]
    assert done == sorted(done) and done[-1] == seen[-1].total == sum(
        len(data)
        for repo in ("acme/tiny", "acme/words")
        for name, data in Hub.repositories[repo].items()
        if name != "README.md"
    )
    assert capfd.readouterr() == ("", "")
    hub.asked.clear()
    pull_model("hf-hub:acme/tiny")
    assert hub.asked == []


@pytest.mark.parametrize(
    ("name", "fetched"),
    [
        ("hf:acme/clip", {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"}),
        ("hf:acme/parts", {*Hub.repositories["acme/parts"]}),
    ],
)
def test_pull_of_a_model_of_transformers(hub: type[Hub], name: str, fetched: set[str]):
    with pytest.raises(ModelMissing, match=f"mmsearch models pull {name}"):
        open_encoder(name)
    assert not is_present(name)
    pull_model(name)
    assert set(hub.asked) == fetched and is_present(name)
    hub.asked.clear()
    pull_model(name + "+views")
    assert hub.asked == []


def test_pull_of_what_comes_from_no_hub(tmp_path: Path):
    pull_model(BUILTIN)
    with pytest.raises(EncoderError, match="there is no module no_such_module"):
        pull_model("no_such_module:Encoder")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelMissing, match="comes from no hub: nothing was fetched"):
        pull_model(str(tmp_path))


def test_pull_of_what_the_hub_does_not_have(hub: type[Hub]):
    with pytest.raises(EncoderError, match="there is no hf:acme/nothing"):
        pull_model("hf:acme/nothing")
    with pytest.raises(EncoderError, match=r"is no model in the format of transformers.*holds no model\.safetensors"):
        pull_model("hf:acme/empty")
    with pytest.raises(EncoderError, match=r"expected hf:ORG/NAME"):
        pull_model("hf:empty")
    with pytest.raises(EncoderError, match="there is no hf-hub:acme/nothing"):
        pull_model("hf-hub:acme/nothing")
    with pytest.raises(EncoderError, match=r"holds no weights for open_clip.*README"):
        pull_model("hf-hub:acme/empty")


def test_pull_without_a_hub_says_so_within_five_seconds(tmp_path: Path):
    code = (
        "from mmsearch.models.encoders.pull import pull_model\nfrom mmsearch.core.errors import HubUnreachable\n"
        f"try: pull_model({SUGGESTED!r})\nexcept HubUnreachable as error: print(error)"
    )
    environment = {
        "PATH": "/usr/bin",
        "HOME": str(tmp_path),
        "PYTHONPATH": ":".join(sys.path),
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    start = time.perf_counter()
    said = subprocess.check_output([sys.executable, "-c", code], text=True, env=environment)
    assert time.perf_counter() - start < 5
    assert "http://127.0.0.1:9 cannot be reached" in said and said.count("\n") == 1


def test_pull_from_a_hub_that_accepts_and_then_says_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mmsearch.models.encoders.pull.PROBE_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        start = time.perf_counter()
        with pytest.raises(HubUnreachable, match="cannot be reached"):
            pull_model("hf-hub:acme/tiny")
        assert time.perf_counter() - start < 2


def test_a_hub_that_fails_says_so(hub: type[Hub], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Hub, "broken", True)
    with pytest.raises(HubUnreachable, match=r"broke off \(.*500.*\); run the same command again"):
        pull_model("hf-hub:acme/tiny")


def test_offline_by_choice_is_respected(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachable, match="HF_HUB_OFFLINE is set"):
        pull_model(SUGGESTED)


def test_pulling_a_wrong_name_needs_no_network():
    with pytest.raises(EncoderError, match="similar names"):
        pull_model("ViT-B32/openai")
