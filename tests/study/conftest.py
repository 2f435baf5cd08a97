"""A study so small that a training takes a blink, and a store for it."""

import pytest

from mechproc.studies.set_to_haystack import Sizes
from mechproc.study.store import Store


@pytest.fixture
def tiny() -> Sizes:
    return Sizes(
        d_model=8,
        n_heads=2,
        n_symbols=8,
        longest_list=4,
        n_keys=4,
        n_values=8,
        most_pairs=3,
        donor_steps=4,
        task_steps=12,
        batch_size=4,
    )


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")
