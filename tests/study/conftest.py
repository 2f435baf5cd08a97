"""A store for small studies."""

import pytest

from mechproc.study.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")
