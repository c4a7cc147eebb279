"""Requests that schemathesis makes from the server's schema: by it, and against it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.generation import GenerationMode

from mmsearch.api import Index
from mmsearch.server.app import API, create_app

BEARING = {"Authorization": "Bearer secret", "Host": "127.0.0.1"}
CHECKED = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")


def ask_cases(index: Index, each: int, done: Callable[[int], None] = lambda status: None, first: int = 0) -> int:
    """Asks so many requests of each kind at each address; returns how many that were. ``done`` gets the status;
    ``first`` is the seed.

    Raises:
        AssertionError, schemathesis.core.failures.FailureGroup: an answer of 500 and above, or one that the schema does
            not know.
    """
    load_all_checks()
    checks: list[Any] = CHECKS.get_by_names(CHECKED)
    schema = schemathesis.openapi.from_asgi(f"{API}/openapi.json", create_app(index, "secret"), headers=BEARING)
    paths = [one.path for one in index.documents()]
    asked = 0

    for operation in schema.get_all_operations():
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            cases = operation.ok().as_strategy(generation_mode=mode)

            @seed(first)
            @settings(
                max_examples=each, deadline=None, database=None, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=cases, path=st.none() | st.sampled_from(paths))
            def ask(case: schemathesis.Case, path: str | None) -> None:
                nonlocal asked
                if path is not None and case.query and "path" in case.query:
                    case.query["path"] = path
                response = case.call(headers=BEARING)
                asked += 1
                done(response.status_code)
                case.validate_response(response, checks=checks)

            with suppress(Unsatisfiable):  # an address without parameters cannot be asked against the schema
                ask()
    return asked
