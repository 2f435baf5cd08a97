"""What happens at which step: learning rates and checkpoints, both pure functions of the step."""

from __future__ import annotations

import math

from mechproc.training.config import TrainingConfig


def learning_rate(training: TrainingConfig, step: int) -> float:
    """The learning rate of update ``step`` (0, 1, ..., steps - 1).

    It rises linearly, is at its highest at ``step == warmup_steps``, and falls so that it would be zero at
    ``step == steps``: no update is made with a rate of zero. The cosine is half a period (Loshchilov and Hutter 2017).
    """
    if step < training.warmup_steps:
        factor = (step + 1) / (training.warmup_steps + 1)
    elif training.schedule == "constant":
        factor = 1.0
    else:
        done = (step - training.warmup_steps) / (training.steps - training.warmup_steps)
        factor = 1 - done if training.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return training.learning_rate * factor


def checkpoint_steps(training: TrainingConfig) -> tuple[int, ...]:
    """After how many steps the weights are kept: 0, and 10^(k/n) rounded, for n checkpoints in a decade; ascending.

    ``checkpoints_at`` come in addition. Steps that round to the same number are kept once. The final weights are kept
    elsewhere, whatever the last step is.
    """
    steps = set(training.checkpoints_at)
    if (n := training.checkpoints_per_decade) is not None:
        last = math.ceil(n * math.log10(training.steps)) + 1
        steps |= {0} | {round(10 ** (k / n)) for k in range(last + 1)}
    return tuple(sorted(s for s in steps if s <= training.last_step))
