"""A cache of exported encoders for the tests of a module alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mmsearch.models.encoders import machine_plan


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Empty at first; torch has one thread meanwhile, and ways to run are tried for a moment only."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(machine_plan, "_SECONDS", 0.01)
        yield
    torch.set_num_threads(threads)
