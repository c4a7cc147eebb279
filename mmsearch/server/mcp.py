"""Tools for assistants: an index over the Model Context Protocol, on stdin and stdout, or as HTTP on this machine.

Only what the index holds leaves it, as with `mmsearch.server.app`. Nothing is written unless the user allowed indexing,
and then only folders that are indexed already are read again: whoever can write into a text that an assistant reads
could otherwise tell it to index a folder of secrets, and to show what is in it.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import functools
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, ImageContent, TextContent, ToolAnnotations
from pydantic import Field, ValidationError

from mmsearch import __version__
from mmsearch.core.errors import MmsearchError, UsageError
from mmsearch.core.modalities import has_pictures, spec_of
from mmsearch.core.options import option_fields
from mmsearch.core.types import SCHEMA, Hit, Modality, Progress
from mmsearch.filters import filter_help
from mmsearch.query.language import QueryError
from mmsearch.query.options import SearchOptions
from mmsearch.query.question import Question, load_picture, opened_picture
from mmsearch.server.access import Guard, is_in_place
from mmsearch.server.pictures import small_picture

if TYPE_CHECKING:
    from mmsearch.api import Index

Arguments = ParamSpec("Arguments")
MOST_RESULTS, MOST_PICTURES = 100, 8
PICTURE_BYTES = 16 << 20
"""Of a picture that is sent to search with."""
MOST_CHARACTERS, MOST_PASSAGES = 20_000, 300
"""Of a text or a transcript that is shown."""
THUMBNAIL = 320
"""Pixels of the longer side of pictures beside results."""
PROGRESS_S = 1.0
"""Seconds between two reports of how far indexing is."""

_HELP = {each.name: each.option.help for each in option_fields(SearchOptions)}
_FILTERS = "\n".join(f"  {example:32} {meaning}" for _, example, meaning in filter_help())
_LANGUAGE = (
    'Words say what to look for, "quoted words" must be written or said there, -word leaves out what shows it. '
    f"Filters stand among the words, -filter:value is the opposite of one:\n{_FILTERS}\n"
    "Filters alone list by date, newest first."
)
INSTRUCTIONS = (
    "Search of a person's own photos, videos, recordings and texts, by what is in them. `search` finds, "
    "`show` lets you see a file, `similar` finds what looks like one, `moments` says where in a video something is. "
    "Name files by their paths."
)

K = Annotated[int, Field(ge=1, le=MOST_RESULTS, description=_HELP["k"])]
Path_ = Annotated[str, Field(description="The absolute path of an indexed file, as results give it.")]
Strict = Annotated[bool, Field(description="Only matches, no weaker results.")]
Pictures = Annotated[
    int, Field(ge=0, le=MOST_PICTURES, description="Also show the first so many results as small pictures.")
]
AtSeconds = Annotated[float | None, Field(ge=0, description="Of a video: the moment, in seconds.")]


def create_mcp(index: Index, *, allow_index: bool = False) -> MCPServer:
    """The server for one open index. ``allow_index`` adds a tool that brings its folders up to date."""
    tools = _Tools(index)
    server = _Server("mmsearch", title="mmsearch", version=__version__, instructions=INSTRUCTIONS, log_level="WARNING")
    reads = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
    for tool, title, more in (
        (tools.search, "Search", f"\n\nThe query language:\n{_LANGUAGE}"),
        (tools.similar, "Find similar", ""),
        (tools.show, "Show a file", ""),
        (tools.moments, "Find moments", ""),
        (tools.status, "Status of the index", ""),
    ):
        text = " ".join((tool.__doc__ or "").split())
        server.add_tool(tool, title=title, description=text + more, annotations=reads, structured_output=False)
    if allow_index:
        text = " ".join((tools.index.__doc__ or "").split())
        writes = ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
        )
        server.add_tool(
            tools.index, title="Update the index", description=text, annotations=writes, structured_output=False
        )
    return server


def run_stdio(index: Index, *, allow_index: bool = False) -> None:
    """Answers the assistant that started this process, until it closes the input or Ctrl-C."""
    with suppress(KeyboardInterrupt):
        create_mcp(index, allow_index=allow_index).run("stdio")


def run_http(
    index: Index, port: int, token: str | None, started: Callable[[str, str], None], *, allow_index: bool = False
) -> None:
    """Answers assistants of this machine over HTTP, until Ctrl-C.

    ``token`` as for `mmsearch.server.run.serve`, as ``Authorization: Bearer``. ``started`` is told the address and the
    token.

    Raises:
        UsageError: the port is taken.
    """
    import uvicorn

    secret = token or secrets.token_urlsafe(24)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise UsageError(f"port {port} cannot be used ({error.strerror}): name another one with --port") from error
    with listener:
        app = Guard(create_mcp(index, allow_index=allow_index).streamable_http_app(), secret)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=3)
        )
        started(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", secret)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


class _Server(MCPServer):
    """Says in one sentence what is wrong with a call."""

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        """See `MCPServer`."""
        try:
            for tool in await self.list_tools():
                if tool.name == name:
                    _check_names(name, arguments, tool.input_schema.get("properties", {}))
            return await super().call_tool(name, arguments, context)
        except MmsearchError as error:
            return _error(error)
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                return _failed(_sentence_of(error.__cause__))
            raise


def _check_names(tool: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for argument in given:
        if argument not in known:
            [*close] = difflib.get_close_matches(argument, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known) or 'none'}"
            raise UsageError(f"{tool} has no argument {argument}: {hint}")


def _sentence_of(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, one['loc'])) or 'the arguments'}: {one['msg'][:1].lower()}{one['msg'][1:]}"
        for one in error.errors()
    )


def _failed(sentence: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=sentence)], is_error=True)


def _error(error: MmsearchError) -> CallToolResult:
    """An error as a sentence; one of the query language says at which character."""
    if isinstance(error, QueryError):
        return _failed(f"{error.problem} (at character {error.position + 1} of {error.query!r})")
    return _failed(" ".join(str(error).split()))


def _as_tool_errors(tool: Callable[Arguments, CallToolResult]) -> Callable[Arguments, CallToolResult]:
    @functools.wraps(tool)
    def answer(*given: Arguments.args, **named: Arguments.kwargs) -> CallToolResult:
        try:
            return tool(*given, **named)
        except MmsearchError as error:
            return _error(error)

    return answer


class _Tools:
    """A method for each tool; their docstrings and the descriptions of their arguments are what assistants read."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._writing = threading.Lock()

    @_as_tool_errors
    def search(
        self,
        text: Annotated[
            str | None, Field(description="What to look for, in words with filters: lake -people after:2021")
        ] = None,
        image_base64: Annotated[
            str | None, Field(description="A picture to look for, as base64; alone or beside the words.")
        ] = None,
        k: K = 10,
        strict: Strict = False,
        min_relevance: Annotated[float | None, Field(ge=0, le=1, description=_HELP["min_relevance"])] = None,
        pictures: Pictures = 0,
    ) -> CallToolResult:
        """Finds photos, video moments and what is said by words, by a picture, or both; texts with type:text. Results
        come best first; those with match true are matches, the others weaker.
        """
        images = [] if image_base64 is None else [opened_picture(_bytes_of(image_base64))]
        texts = [text] if text and text.strip() else []
        return self._found(Question.of(texts, images), k=k, strict=strict, min_relevance=min_relevance, shown=pictures)

    @_as_tool_errors
    def similar(
        self,
        path: Path_,
        at_s: AtSeconds = None,
        text: Annotated[
            str | None, Field(description="Words and filters beside the picture: at night -people type:video")
        ] = None,
        k: K = 10,
        strict: Strict = False,
        pictures: Pictures = 0,
    ) -> CallToolResult:
        """Finds what looks like an indexed photo or video, or like one moment of a video."""
        path, modality = self._indexed(path)
        if not has_pictures(modality):
            raise UsageError(f"there is no picture in {path}: search for its words")
        image: Any = Path(path) if at_s is None else load_picture(Path(path), at_s=at_s)
        texts = [text] if text and text.strip() else []
        return self._found(Question.of(texts, [image]), k=k, strict=strict, shown=pictures, without=path)

    def _found(
        self, question: Question, *, k: int, strict: bool, shown: int, min_relevance: float | None = None,
        without: str | None = None,
    ) -> CallToolResult:  # fmt: skip
        options = SearchOptions(k=k + (without is not None), strict=strict, min_relevance=min_relevance, collapse=True)
        notes: list[str] = []
        [found] = self._index.search_many([question], options=options, note=notes.append)
        hits = [hit for hit in found if hit.path != without][:k]
        values: dict[str, Any] = {"hits": [_row(hit) for hit in hits]}
        if hits and not hits[0].match:
            notes.append("nothing matches well; these are the nearest")
        if not hits:
            values["reason"] = found.reason or "nothing in the index is like that"
        if notes:
            values["notes"] = notes
        return _result(values, [picture for hit in hits[:shown] for picture in self._beside(hit)])

    def _beside(self, hit: Hit) -> list[TextContent | ImageContent]:
        """A small picture of a result, after its number; nothing where there is none."""
        with suppress(MmsearchError):
            path, modality = self._indexed(hit.path)
            data = small_picture(path, modality, THUMBNAIL, hit.shown_s)
            if data is not None:
                return [TextContent(type="text", text=f"{hit.rank}: {hit.path}"), _picture(data)]
        return []

    @_as_tool_errors
    def show(
        self,
        path: Path_,
        at_s: AtSeconds = None,
        size: Annotated[int, Field(ge=64, le=1280, description="Pixels of the longer side of the picture.")] = 640,
    ) -> CallToolResult:
        """Shows an indexed file: a photo or a frame of a video as a picture, a text as its words, what is said in a
        video or recording; with what is known of the file.
        """
        path, modality = self._indexed(path)
        values = self._facts(path)
        if modality == "text":
            values |= _beginning(path)
        elif spec_of(modality).is_sampled or not has_pictures(modality):
            said = [_known({**cue._asdict(), "words": None}) for cue in self._index.transcript(path)]
            values |= {"said": said[:MOST_PASSAGES], **({"more": True} if len(said) > MOST_PASSAGES else {})}
        if not has_pictures(modality):
            return _result(values)
        data = small_picture(path, modality, size, at_s)
        if data is None:
            raise UsageError(f"no picture can be read from {path}: it may be gone or damaged")
        return _result(values, [_picture(data)])

    @_as_tool_errors
    def moments(
        self,
        path: Path_,
        text: Annotated[str, Field(description="What to look for in it, in words.")],
        k: K = 5,
        pictures: Pictures = 0,
    ) -> CallToolResult:
        """Says where in an indexed video or recording something is seen or said: times in seconds, best first."""
        path, modality = self._indexed(path)
        if not spec_of(modality).is_sampled and modality != "sound":
            raise UsageError(f"{path} is no video and no recording, so it has no moments")
        hits = self._index.moments(path, text, k=k)
        shown = [picture for hit in hits[:pictures] for picture in self._beside(hit)]
        return _result({"moments": [_row(hit) for hit in hits]}, shown)

    @_as_tool_errors
    def status(self) -> CallToolResult:
        """Says what the index holds: how many photos, videos, recordings and texts, of which folders."""
        return _result(_known(self._index.status()))

    @_as_tool_errors
    def index(
        self,
        context: Context,
        paths: Annotated[
            list[str] | None,
            Field(description="Folders or files at or below indexed folders; by default all indexed folders."),
        ] = None,
    ) -> CallToolResult:
        """Brings the index up to date with its folders: what is new or changed there is read. Other folders are only
        taken in by the user, with `mmsearch index FOLDER`.
        """
        roots = [Path(root) for root in self._index.status()["roots"]]
        wanted = [Path(path).expanduser() for path in paths or roots]
        if not wanted:
            raise UsageError("no folder is indexed yet: the user fills the index with `mmsearch index FOLDER`")
        for path in wanted:
            place = path.resolve()
            if not any(place == root or root in place.parents for root in (root.resolve() for root in roots)):
                raise UsageError(
                    f"{path} is not below an indexed folder: the user adds it with `mmsearch index {path}`"
                )
        if not self._writing.acquire(blocking=False):
            raise UsageError("the index is being brought up to date already")
        try:
            report = self._index.add(wanted, progress=_reporting(context))
        finally:
            self._writing.release()
        skipped = [asdict(skip) for skip in report.skipped]
        counts = {name: getattr(report, name) for name in ("indexed", "updated", "unchanged", "removed", "absent")}
        return _result({**counts, "skipped": skipped[:MOST_RESULTS], "skipped_in_all": len(skipped)})

    def _facts(self, path: str) -> dict[str, Any]:
        document = self._index.document_at(path)
        assert document is not None
        changed = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(document.mtime_ns / 1e9))
        facts = {"path": path, "modality": document.modality, "bytes": document.size, "changed": changed}
        return _known({**facts, "caption": document.caption, "description": document.description})

    def _indexed(self, path: str) -> tuple[str, Modality]:
        """A path and its modality; nothing else than what the index holds is read from the disk."""
        document = self._index.document_at(path) if path.strip() else None
        if document is None:
            raise UsageError(f"{path or 'an empty path'} is not in the index: `search` gives the paths that are")
        if not is_in_place(document):
            raise UsageError(f"{path} leads to another file than the one that was indexed: index it again")
        return document.path, document.modality


def _bytes_of(text: str) -> bytes:
    """The bytes of a picture that was sent, also as a ``data:`` address."""
    if len(text) > PICTURE_BYTES * 4 // 3:
        raise UsageError(f"the picture is larger than {PICTURE_BYTES >> 20} MB: send a smaller one")
    try:
        return base64.b64decode(text.rpartition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("image_base64 is no base64: send the bytes of a picture, encoded") from None


def _beginning(path: str) -> dict[str, Any]:
    """The text of a file, or its beginning."""
    from mmsearch.media.text.encoding import decode_text
    from mmsearch.sources import read_sample

    file = Path(path)
    if file.is_file():
        with file.open("rb") as opened:
            data: bytes | None = opened.read(4 * MOST_CHARACTERS)
    else:
        data = read_sample(file)
    if data is None:
        raise UsageError(f"{path} is not there any more")
    text = decode_text(data)
    return {"text": text[:MOST_CHARACTERS], **({"more": True} if len(text) > MOST_CHARACTERS else {})}


def _reporting(context: Context) -> Callable[[Progress], None]:
    """Tells the assistant how far indexing is, not too often."""
    last = time.monotonic()

    def report(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= PROGRESS_S:
            last = time.monotonic()
            with suppress(Exception):  # whoever asked may be gone, and what is read is kept all the same
                anyio.from_thread.run(context.report_progress, progress.done, progress.total, progress.path)

    return report


def _row(hit: Hit) -> dict[str, Any]:
    """A result without what only programs of this project have a use for, and without what is not known."""
    return _known({name: value for name, value in hit.as_json().items() if name not in ("parts", "score", "segment")})


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None and value != []}


def _picture(data: bytes) -> ImageContent:
    return ImageContent(type="image", data=base64.b64encode(data).decode(), mime_type="image/jpeg")


def _result(values: Mapping[str, Any], more: Sequence[TextContent | ImageContent] = ()) -> CallToolResult:
    """JSON as text, which every assistant reads, and as it is, for programs; pictures after it."""
    named = {"schema": SCHEMA, **values}
    text = TextContent(type="text", text=json.dumps(named, ensure_ascii=False, default=str))
    return CallToolResult(content=[text, *more], structured_content=json.loads(text.text))
