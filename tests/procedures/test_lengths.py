from __future__ import annotations

import numpy as np
import pytest

from mechproc.errors import ConfigError
from mechproc.procedures.lengths import Curriculum, Fixed, LengthDistribution, Uniform


@pytest.mark.parametrize(
    ("lengths", "support"),
    [
        (Fixed(7), [7]),
        (Uniform(2, 5), [2, 3, 4, 5]),
        (Uniform(4, 10, step=2), [4, 6, 8, 10]),
        (Uniform(4, 9, step=2), [4, 6, 8]),
        (Uniform(3, 3), [3]),
        (Curriculum(2, 8), [2, 4, 6, 8]),
        (Curriculum(2, 7), [2, 4, 6, 7]),
        (Curriculum(2, 8, cumulative=False), [8]),
        (Curriculum(5, 5), [5]),
    ],
)
def test_support(lengths, support):
    assert lengths.support().tolist() == support
    assert lengths.max == support[-1]
    assert lengths.support().dtype == np.int64


@pytest.mark.parametrize(
    ("curriculum", "stages"),
    [
        (Curriculum(2, 7, increment=2), [[2], [2, 4], [2, 4, 6], [2, 4, 6, 7]]),
        (Curriculum(2, 7, increment=2, cumulative=False), [[2], [4], [6], [7]]),
        (Curriculum(3, 4, increment=9), [[3], [3, 4]]),
        (Curriculum(3, 3), [[3]]),
    ],
)
def test_a_curriculum_grows_stage_by_stage(curriculum, stages):
    assert curriculum.n_stages == len(stages)
    assert [curriculum.support(stage).tolist() for stage in range(len(stages))] == stages
    assert curriculum.support(None).tolist() == stages[-1]
    for stage in (-1, len(stages)):
        with pytest.raises(ConfigError, match=f"stage = {stage} is not allowed: 0 to {len(stages) - 1}"):
            curriculum.support(stage)


@pytest.mark.parametrize("lengths", [Fixed(3), Uniform(2, 6, step=2)])
def test_other_distributions_have_one_stage(lengths):
    assert lengths.n_stages == 1
    assert np.array_equal(lengths.support(0), lengths.support(None))


@pytest.mark.parametrize("lengths", [Uniform(2, 9), Uniform(4, 16, step=4), Curriculum(2, 9, increment=3)])
def test_draws_are_uniform_over_the_support(lengths):
    n = 6000
    drawn = lengths.draw(np.random.default_rng(0), n)
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == lengths.support().tolist()
    share = 1 / len(values)
    assert np.abs(counts / n - share).max() < 4 * np.sqrt(share * (1 - share) / n)


def test_draws_follow_the_generator_and_the_stage():
    lengths = Curriculum(2, 40)
    first, again = (lengths.draw(np.random.default_rng(1), 50) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, lengths.draw(np.random.default_rng(2), 50))
    assert set(lengths.draw(np.random.default_rng(1), 50, stage=1).tolist()) == {2, 4}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fixed(0), "length = 0 is not allowed: at least 1"),
        (lambda: Uniform(0, 4), "low = 0 is not allowed: at least 1"),
        (lambda: Uniform(5, 4), "high = 4 is not allowed: at least low = 5"),
        (lambda: Uniform(1, 4, step=0), "step = 0 is not allowed: at least 1"),
        (lambda: Curriculum(0, 4), "start = 0 is not allowed: at least 1"),
        (lambda: Curriculum(4, 3), "stop = 3 is not allowed: at least start = 4"),
        (lambda: Curriculum(2, 4, increment=0), "increment = 0 is not allowed: at least 1"),
        (lambda: Curriculum(2, 4, threshold=0.0), "threshold = 0.0 is not allowed"),
        (lambda: Curriculum(2, 4, threshold=1.5), "threshold = 1.5 is not allowed"),
    ],
)
def test_impossible_lengths_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("lengths", [Fixed(3), Uniform(2, 8, 3), Curriculum(2, 9, 3, 0.5, False)])
def test_lengths_come_back_from_json(lengths):
    back = LengthDistribution.from_dict(lengths.to_dict())
    assert back == lengths and type(back) is type(lengths)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"kind": "unform", "low": 1, "high": 2}, "did you mean 'uniform'"),
        ({"kind": "uniform", "low": 1, "hgih": 2}, "hgih is not a setting; did you mean 'high'"),
        ({"kind": "uniform", "low": 1}, "high is missing"),
        ({"kind": "fixed", "length": 2.5}, "length = 2.5 is not allowed: int is expected"),
        ({"kind": "fixed", "length": 0}, "length = 0 is not allowed"),
        (7, "a table of settings is expected"),
    ],
)
def test_malformed_lengths_are_refused(plain, message):
    with pytest.raises(ConfigError, match=message):
        LengthDistribution.from_dict(plain)
