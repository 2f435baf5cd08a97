"""Learning rates and checkpoint steps, by hand."""

import pytest

from mechproc.training.config import TrainingConfig
from mechproc.training.schedule import checkpoint_steps, learning_rate


def rates(**settings: object) -> list[float]:
    training = TrainingConfig(learning_rate=8.0, **settings)  # type: ignore[arg-type]
    return [learning_rate(training, step) for step in range(training.steps)]


def test_cosine() -> None:
    # warm-up 1/3, 2/3; then (1 + cos(pi k / 4)) / 2 for k = 0..3, with cos(pi / 4) = 0.70710678
    expected = [8 / 3, 16 / 3, 8.0, 8 * 0.85355339, 4.0, 8 * 0.14644661]
    assert rates(steps=6, warmup_steps=2, schedule="cosine") == pytest.approx(expected)


def test_linear_and_constant() -> None:
    assert rates(steps=5, warmup_steps=1, schedule="linear") == pytest.approx([4.0, 8.0, 6.0, 4.0, 2.0])
    assert rates(steps=4, warmup_steps=1, schedule="constant") == pytest.approx([4.0, 8.0, 8.0, 8.0])
    assert rates(steps=2, warmup_steps=0, schedule="linear") == pytest.approx([8.0, 4.0])


def test_it_would_be_zero_after_the_last_step() -> None:
    training = TrainingConfig()
    assert learning_rate(training, training.steps) == pytest.approx(0.0, abs=1e-12)
    assert learning_rate(training, training.warmup_steps) == training.learning_rate


@pytest.mark.parametrize(
    ("per_decade", "steps", "expected"),
    [
        (1, 10_000, (0, 1, 10, 100, 1_000, 10_000)),
        (2, 1_000, (0, 1, 3, 10, 32, 100, 316, 1_000)),
        (3, 25, (0, 1, 2, 5, 10, 22)),
        (10, 5, (0, 1, 2, 3, 4, 5)),
        (1, 1, (0, 1)),
        (None, 100, ()),
    ],
)
def test_checkpoints_are_log_spaced(per_decade: int | None, steps: int, expected: tuple[int, ...]) -> None:
    training = TrainingConfig(steps=steps, warmup_steps=0, checkpoints_per_decade=per_decade)
    assert checkpoint_steps(training) == expected


def test_checkpoints_at_given_steps_and_none_after_the_last() -> None:
    training = TrainingConfig(steps=1_000, warmup_steps=0, checkpoints_per_decade=1, checkpoints_at=(50, 700))
    assert checkpoint_steps(training) == (0, 1, 10, 50, 100, 700, 1_000)
    assert checkpoint_steps(training.replace(stop_after=100)) == (0, 1, 10, 50, 100)
    assert checkpoint_steps(training.replace(checkpoints_per_decade=None)) == (50, 700)
