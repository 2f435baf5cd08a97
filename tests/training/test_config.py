"""Settings: the paper's numbers, and one clear line for what cannot be used."""

from typing import Any

import pytest

from mechproc.errors import ConfigError
from mechproc.training.config import RULE, RULE_FOLLOW_UP, TASK, TrainingConfig


def test_the_defaults_are_the_papers_task_protocol() -> None:
    assert (TASK.steps, TASK.batch_size, TASK.n_test, TASK.warmup_steps, TASK.schedule) == (
        10_000,
        1_000,
        4_000,
        500,
        "cosine",
    )
    assert (TASK.learning_rate, TASK.weight_decay, TASK.betas, TASK.clip_norm) == (1e-3, 1e-3, (0.9, 0.999), 1.0)
    assert (TASK.dropout, TASK.patience, TASK.stop_at_accuracy) == (0.0, None, None)


def test_the_presets_are_the_papers_pretraining() -> None:
    for preset in (RULE, RULE_FOLLOW_UP):
        assert (preset.steps, preset.batch_size, preset.dropout, preset.clip_norm) == (20_000, 64, 0.1, 1.0)
        assert 0.01 <= preset.weight_decay <= 0.1 and preset.patience
    assert (RULE.learning_rate, RULE.schedule, RULE.warmup_steps) == (5e-5, "cosine", 1_000)
    assert (RULE_FOLLOW_UP.learning_rate, RULE_FOLLOW_UP.schedule) == (5e-4, "constant")


def test_json_comes_back() -> None:
    odd = TrainingConfig(steps=9, warmup_steps=3, betas=(0.5, 0.75), clip_norm=None, patience=2, schedule="linear")
    assert TrainingConfig.from_dict(odd.to_dict()) == odd
    assert odd.digest() != odd.replace(patience=3).digest()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, r"steps = 0 is not allowed: at least 1"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"evaluate_every": 0}, "evaluate_every = 0"),
        ({"n_validation": 0}, "n_validation = 0"),
        ({"n_test": -1}, "n_test = -1"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate = nan"),
        ({"weight_decay": -0.1}, "weight_decay = -0.1"),
        ({"weight_decay": float("inf")}, "weight_decay = inf"),
        ({"betas": (0.9, 1.0)}, "betas = "),
        ({"adam_eps": 0.0}, "adam_eps = 0.0"),
        ({"dropout": 1.0}, "dropout = 1.0 is not allowed: 0 to below 1"),
        ({"dropout": -0.1}, "dropout = -0.1"),
        ({"clip_norm": 0.0}, "clip_norm = 0.0"),
        ({"steps": 500}, r"warmup_steps = 500 is not allowed: 0 to below steps = 500"),
        ({"warmup_steps": -1}, "warmup_steps = -1"),
        ({"patience": 0}, "patience = 0 is not allowed: at least 1, or None"),
        ({"stop_at_accuracy": 1.5}, "stop_at_accuracy = 1.5"),
        ({"checkpoints_per_decade": 0}, "checkpoints_per_decade = 0"),
        ({"checkpoints_at": (0, 10_001)}, "checkpoints_at = 10001"),
        ({"stop_after": 0}, "stop_after = 0"),
        ({"stop_after": 10_001}, "stop_after = 10001"),
    ],
)
def test_bad_settings_are_one_line(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        TrainingConfig(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("field", "value"), [("betas", (0.9,)), ("schedule", "cosin")])
def test_values_of_a_wrong_type_are_refused(field: str, value: Any) -> None:
    with pytest.raises((ConfigError, TypeError), match=field):  # TypeError where annotations are executed
        TrainingConfig(**{field: value})
    with pytest.raises(ConfigError, match=rf"TrainingConfig\.{field} = "):
        TrainingConfig.from_dict({field: value})
