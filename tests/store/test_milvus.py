from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmsearch.store.base import Store
from tests.store.contract import SPEC, Contract

pytest.importorskip("pymilvus", reason="pymilvus is not installed")
pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")


class Milvus(Contract):
    def make(self, folder: Path) -> Store:
        from mmsearch.store.milvus.store import MilvusFamily

        return MilvusFamily().create(self.address(folder), SPEC.name, SPEC)

    def address(self, folder: Path) -> str:
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        made = self.make(tmp_path)
        yield made
        made.close()


class TestMilvusLite(Milvus):
    def address(self, folder: Path) -> str:
        return f"milvus:{folder}/store.db"


class TestMilvusServer(Milvus):
    def address(self, folder: Path) -> str:
        return f"milvus://127.0.0.1:19777/t{uuid.uuid4().hex[:8]}?index=flat"
