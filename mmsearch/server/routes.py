"""How a request reaches the function that answers it, and how values become JSON: what every search pays for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

from fastapi import params
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from mmsearch.core.types import SCHEMA
from mmsearch.server.parameters import read

if TYPE_CHECKING:
    from starlette.requests import Request


class QueryRoute(APIRoute):
    """A route whose function, where all that it takes is one model of the address, is called with what pydantic reads.

    FastAPI's own way to it looks at every field of the model anew for each request. The schema stays FastAPI's.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See `APIRoute`."""
        endpoint, model = self.endpoint, _only_model(self.endpoint)
        if model is None:
            return super().get_route_handler()
        waits = inspect.iscoroutinefunction(endpoint)

        async def handled(request: Request) -> Response:
            asked = read(model, request.query_params.multi_items())
            answer: Response = await (endpoint(asked) if waits else run_in_threadpool(endpoint, asked))
            return answer

        return handled


def _only_model(endpoint: Callable[..., Any]) -> type[BaseModel] | None:
    """The model of the address that a function takes, if it takes nothing else."""
    names = list(inspect.signature(endpoint).parameters)
    if len(names) != 1:
        return None
    annotation = get_type_hints(endpoint, include_extras=True)[names[0]]
    if get_origin(annotation) is not Annotated:
        return None
    kind, *more = get_args(annotation)
    is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
    return kind if is_model and any(isinstance(one, params.Query) for one in more) else None


def json_answer(**values: Any) -> Response:
    """The values, and the number of the schema, as JSON."""
    return Response(to_json({"schema": SCHEMA, **values}, inf_nan_mode="null"), media_type="application/json")
