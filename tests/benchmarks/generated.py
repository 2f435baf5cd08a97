"""A store whose runs nobody trained: scores and curves that look like those of a study, from random numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from mechproc.provenance import provenance
from mechproc.runs.config import RunConfig
from mechproc.runs.store import Store


class GeneratedStore(Store):
    """Has the scores of every run but of those whose identity is in ``absent``; no weights."""

    def __init__(self, absent: Iterable[str] = (), points: int = 50) -> None:
        super().__init__("nowhere")
        self.absent, self.points = set(absent), points
        self._environment = provenance()
        self._metrics: dict[str, pd.DataFrame] = {}

    def has_scores(self, run: RunConfig) -> bool:
        """Whether the run is there."""
        return run.identity not in self.absent

    def has_weights(self, run: RunConfig) -> bool:
        """No run has weights."""
        return False

    def provenance(self, run: RunConfig) -> dict[str, str]:
        """This process."""
        return self._environment

    def metrics(self, run: RunConfig) -> pd.DataFrame:
        """A plateau, a stair and noise."""
        if run.identity not in self._metrics:
            self._metrics[run.identity] = self._drawn(run)
        return self._metrics[run.identity]

    def test(self, run: RunConfig) -> dict[str, Any]:
        """The scores at the end of the curve."""
        metrics = self.metrics(run)
        accuracy = float(metrics["token_accuracy"].iloc[-1])
        return {
            "accuracy": accuracy,
            "item_accuracy": accuracy / 2,
            "loss": 3 * (1 - accuracy),
            "steps": run.training.last_step,
            "stopped": "steps",
            "ceiling": 1.0,
            "baselines": {"a guess": 0.1},
            "seconds": 60.0,
        }

    def _drawn(self, run: RunConfig) -> pd.DataFrame:
        rng = self._rng(run)
        steps = np.linspace(0, run.training.last_step, self.points).astype(int)
        crossing, height = rng.uniform(0.1, 1.5) * run.training.last_step, rng.uniform(0.5, 0.9)
        stair = height / (1 + np.exp(-(steps - crossing) / (0.03 * run.training.last_step + 1)))
        accuracy = np.clip(0.1 + stair + rng.normal(0, 0.01, self.points), 0, 1)
        return pd.DataFrame({"step": steps, "token_accuracy": accuracy, "loss": 3 * (1 - accuracy)})

    def _rng(self, run: RunConfig) -> np.random.Generator:
        return np.random.default_rng(int(hashlib.sha256(run.identity.encode()).hexdigest()[:12], 16))
