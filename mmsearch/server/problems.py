"""What went wrong, as ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from mmsearch.core.errors import IndexBusy, MmsearchError, ResourceShortage
from mmsearch.core.types import SCHEMA
from mmsearch.query.language import QueryError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """What went wrong: ``detail`` is the sentence for people."""

    type: str = Field("about:blank", description="Always about:blank: the status says what kind of problem it is.")
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What was found, what was expected, what to do.")
    position: int | None = Field(None, description="Where in the query, a character counted from 0.")
    schema_: int = Field(SCHEMA, alias="schema")


def problem(status: int, detail: str, position: int | None = None) -> JSONResponse:
    """An answer that says what is wrong."""
    values = {
        "type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail,
        **({} if position is None else {"position": position}), "schema": SCHEMA,
    }  # fmt: skip
    return JSONResponse(values, status, media_type=MEDIA_TYPE)


class NotThereError(MmsearchError):
    """What is asked for is not there: status 404."""


class ForbiddenError(MmsearchError):
    """The server was not started for this: status 403."""


def add_handlers(app: FastAPI) -> None:
    """Everything that is raised while a request is answered becomes a problem."""
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    from mmsearch.server.parameters import wrong

    def refused(request: Request, error: Exception) -> Response:
        return problem(_status(error), str(error), error.position if isinstance(error, QueryError) else None)

    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return refused(request, wrong(error.errors(), _names(request)))

    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail = str(error.detail)
        if error.status_code == 404:
            detail = f"there is nothing at {request.url.path}: GET /api/v1/docs lists what there is"
        answer = problem(error.status_code, detail)
        answer.headers.update(error.headers or {})
        return answer

    def failed(request: Request, error: Exception) -> Response:
        """A fault in here: the traceback goes to the terminal, one line of it to the client."""
        return problem(500, f"this request failed ({type(error).__name__}: {error})")

    app.add_exception_handler(MmsearchError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, failed)


def _status(error: Exception) -> int:
    kinds: tuple[tuple[type[Exception] | tuple[type[Exception], ...], int], ...] = (
        (NotThereError, 404), (ForbiddenError, 403), ((IndexBusy, ResourceShortage), 503),
    )  # fmt: skip
    return next((status for kind, status in kinds if isinstance(error, kind)), 400)


def _names(request: Request) -> list[str]:
    """The parameters that the address has."""
    route = request.scope.get("route")
    names: list[str] = []
    for each in getattr(getattr(route, "dependant", None), "query_params", ()):
        fields = getattr(each.field_info.annotation, "model_fields", None)
        names += [each.alias] if fields is None else [field.alias or name for name, field in fields.items()]
    return names
