"""Fetching a model from the Hugging Face hub: the only place of mmsearch that opens a connection."""

from __future__ import annotations

import inspect
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmsearch.core.errors import EncoderError, HubUnreachable, ModelMissing
from mmsearch.models.encoders.open_clip_files import CONFIG_FILE, HUB_PREFIX, checkpoint_candidates, hub_place
from mmsearch.models.encoders.registry import is_on_hub, is_present, plain_name
from mmsearch.models.encoders.transformers import is_hub_name, repo_of, wanted_files
from mmsearch.models.encoders.weights import hub_cache_dir, hub_file

PROBE_SECONDS = 3.0
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True)
class PullProgress:
    """Where a download stands. ``done`` and ``total`` are bytes of all files of the model together."""

    file: str
    done: int
    total: int


@dataclass(frozen=True)
class _File:
    repo: str
    name: str
    size: int


def pull_model(name: str, progress: Callable[[PullProgress], None] | None = None) -> None:
    """Fetches the weights, the configuration and the tokenizer of a model into the Hugging Face cache.

    Files that are there already are not fetched again; a download that broke off is continued.

    Raises:
        EncoderError: there is no such model, on the hub or in open_clip, or it must not be fetched.
        HubUnreachable: the hub does not answer within a few seconds, or the connection broke.
    """
    name = plain_name(name)
    if not is_on_hub(name):
        if not is_present(name):
            raise ModelMissing(f"{name} is not whole, and comes from no hub: nothing was fetched")
        return
    is_open_clip = not is_hub_name(name)
    place = (
        hub_place(name) if is_open_clip and not name.startswith(HUB_PREFIX) else None
    )  # a wrong name costs no network
    endpoint = _reachable_hub(name)
    with _Translated(name, endpoint):
        if is_open_clip:
            files = _files_of_repository(name, place, endpoint)
            files += _files_of_tokenizer(files, name, endpoint)
        else:
            files = _files_for_transformers(repo_of(name), endpoint)
        _download(files, endpoint, progress)


def pull_files(
    name: str, repo: str, wanted: Sequence[str], progress: Callable[[PullProgress], None] | None = None
) -> None:
    """Fetches those files of a repository, as far as it has them, into the Hugging Face cache; ``name``: for messages.

    Raises:
        EncoderError: there is no such repository.
        HubUnreachable: the hub does not answer within a few seconds, or the connection broke.
    """
    endpoint = _reachable_hub(name)
    with _Translated(name, endpoint):
        sizes = _sizes(repo, endpoint)
        _download([_File(repo, file, sizes[file]) for file in wanted if file in sizes], endpoint, progress)


def _files_for_transformers(repo: str, endpoint: str) -> list[_File]:
    sizes = _sizes(repo, endpoint)
    names = wanted_files(sizes)
    if not names or "config.json" not in names:
        lacking = "config.json" if names else "model.safetensors or pytorch_model.bin"
        raise EncoderError(
            f"{repo} on {endpoint} is no model in the format of transformers: it holds no {lacking}; found"
            f" {', '.join(sorted(sizes)[:8]) or 'nothing'}"
        )
    return [_File(repo, name, sizes[name]) for name in names]


def _files_of_repository(name: str, place: tuple[str, str] | None, endpoint: str) -> list[_File]:
    repo, filename = place or (name.removeprefix(HUB_PREFIX), "")
    sizes = _sizes(repo, endpoint)
    weights = next((file for file in checkpoint_candidates(filename) if file in sizes), None)
    if weights is None:
        raise EncoderError(
            f"{repo} on {endpoint} holds no weights for open_clip; expected one of"
            f" {', '.join(checkpoint_candidates(filename))}; found {', '.join(sorted(sizes)[:8]) or 'none'}"
        )
    names = [weights] if place else [weights, CONFIG_FILE]
    if CONFIG_FILE in names and CONFIG_FILE not in sizes:
        raise EncoderError(f"{repo} on {endpoint} holds no {CONFIG_FILE}; it is no model of open_clip")
    names += [file for file in _TOKENIZER_FILES if file in sizes]
    return [_File(repo, file, sizes[file]) for file in names]


def _files_of_tokenizer(files: list[_File], name: str, endpoint: str) -> list[_File]:
    """What lies in other repositories: the tokenizer, the configuration of a text encoder of transformers."""
    repo = files[0].repo
    if name.startswith(HUB_PREFIX):
        _download([file for file in files if file.name == CONFIG_FILE], endpoint, None)
        path = hub_file(repo, CONFIG_FILE)
        config = json.loads(path.read_text(encoding="utf-8"))["model_cfg"] if path else {}
    else:
        config = _builtin_config(name.rpartition("/")[0])
    text = config.get("text_cfg", {})
    more: list[_File] = []
    tokenizer = str(text.get("hf_tokenizer_name") or "").removeprefix("hf-hub:")
    if tokenizer and tokenizer != repo:
        sizes = _sizes(tokenizer, endpoint)
        more += [_File(tokenizer, file, sizes[file]) for file in _TOKENIZER_FILES if file in sizes]
    if text_model := text.get("hf_model_name"):
        more.append(_File(str(text_model), "config.json", 0))
    return more


def _builtin_config(architecture: str) -> dict[str, Any]:
    """A configuration out of the open_clip package, which is not imported for it."""
    spec = find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise EncoderError("open_clip is not installed; install open_clip_torch")
    path = Path(spec.submodule_search_locations[0]) / "model_configs" / f"{architecture}.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _sizes(repo: str, endpoint: str) -> dict[str, int]:
    from huggingface_hub import HfApi

    info = HfApi(endpoint=endpoint).model_info(repo, files_metadata=True, timeout=10)
    return {file.rfilename: file.size or 0 for file in info.siblings or []}


def _download(files: list[_File], endpoint: str, progress: Callable[[PullProgress], None] | None) -> None:
    from huggingface_hub import hf_hub_download

    total = sum(file.size for file in files)
    before = 0
    for file in files:
        options: dict[str, Any] = {"endpoint": endpoint, "cache_dir": hub_cache_dir()}
        if "tqdm_class" in inspect.signature(hf_hub_download).parameters:
            options["tqdm_class"] = _bar(file.name, before, total, progress)
        hf_hub_download(file.repo, file.name, **options)
        before += file.size
        if progress is not None:
            progress(PullProgress(file.name, before, total))


def _bar(name: str, before: int, total: int, progress: Callable[[PullProgress], None] | None) -> type:
    """A progress bar for huggingface_hub that draws nothing and tells the callback instead."""
    import importlib

    base: Any = importlib.import_module("tqdm.std").tqdm

    class Bar(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            self._done = int(kwargs.get("initial") or 0)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            self._done += int(n or 0)
            if progress is not None:
                progress(PullProgress(name, before + self._done, max(total, before + self._done)))
            return None

    return Bar


def _reachable_hub(name: str) -> str:
    """The address of the hub, once it has answered anything at all.

    huggingface_hub alone would try again for minutes. The question is asked from a thread, because looking up
    a host name takes no time limit.
    """
    from huggingface_hub import constants

    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    hint = f"{name} was not fetched; connect to the network, or copy the model here and name its directory"
    if constants.HF_HUB_OFFLINE:
        raise HubUnreachable(f"HF_HUB_OFFLINE is set, so nothing is fetched from {endpoint}; {hint}")
    outcome: list[str] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(endpoint, method="HEAD")
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            outcome.append("")  # it answered; what it thinks of the question does not matter
        except Exception as error:
            outcome.append(str(getattr(error, "reason", error)))
        else:
            outcome.append("")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS + 1)
    reason = outcome[0] if outcome else f"no answer within {PROBE_SECONDS:g} s"
    if reason:
        raise HubUnreachable(f"{endpoint} cannot be reached ({reason}); {hint}")
    return endpoint


class _Translated:
    """Turns what huggingface_hub raises into errors of mmsearch."""

    def __init__(self, name: str, endpoint: str) -> None:
        self._name, self._endpoint = name, endpoint

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        from huggingface_hub import errors

        if error is None or isinstance(error, EncoderError) or not isinstance(error, Exception):
            return
        where = f"{self._name} on {self._endpoint}"
        if isinstance(error, errors.GatedRepoError):
            raise EncoderError(
                f"{where} is given only to those who accept its terms there; then run: hf auth login"
            ) from error
        if isinstance(error, (errors.RepositoryNotFoundError, errors.EntryNotFoundError, errors.HFValidationError)):
            raise EncoderError(f"there is no {where}, or it is private: {_first_line(error)}") from error
        raise HubUnreachable(
            f"fetching {where} broke off ({_first_line(error)}); run the same command again to go on"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
