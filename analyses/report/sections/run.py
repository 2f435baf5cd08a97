"""One training on a page: its config, curve, test scores and provenance, and what its weights and heads look like."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analyses import figures, weights
from analyses.report.document import Report
from analyses.report.sections import arms, attention
from mechproc.errors import StoreError
from mechproc.model.hooked import HookedTransformer
from mechproc.result import Result
from mechproc.runs.config import RunConfig
from mechproc.runs.folder import RunFolder
from mechproc.runs.store import Store


def config_of(folder: RunFolder) -> RunConfig:
    """The config of the run that a folder holds. Errors: ``StoreError``, ``ConfigError``."""
    return RunConfig.from_dict(folder.read_config()["config"])


def add(page: Report, run: RunConfig, store: Store) -> None:
    """The sections of a run, as far as it has got."""
    page.heading(f"Run {run.name}")
    about = run.summary()
    page.text("; ".join(f"{what}: {said}" for what, said in about.items()) + ".")
    complete = store.has_scores(run)
    if complete:
        page.table(_scores(run, store), "Test scores, beside the best attainable and the predictors without the rule.")
    else:
        page.note("Not complete: there are no test scores yet.")
    if (curve := curve_of(run, store)) is not None:
        page.figure(figures.curves(curve), "Validation accuracy along the training.", curve)
    if store.has_weights(run):
        model = HookedTransformer(*store.model(run), name=run.name)
        spectrum = weights.spectrum({run.seed: model})
        page.figure(figures.spectra(spectrum), "Spectra of the weights after training.", spectrum)
        attention.add(page, model, run.procedure)
    page.table(arms.settings(run, store.provenance(run) if complete else None), "The settings of the run.")


def curve_of(run: RunConfig, store: Store) -> Result | None:
    """Validation accuracy by step; ``None`` before the first validation."""
    try:
        metrics = store.metrics(run)
    except (StoreError, KeyError):
        return None
    if not len(metrics):
        return None
    return Result(
        name="validation accuracy",
        values=np.array(metrics["token_accuracy"], dtype=float)[None, None],
        axes=("arm", "seed", "step"),
        coordinates={"arm": [run.label], "seed": [run.seed], "step": metrics["step"].tolist()},
        unit="fraction",
        direction="higher: more of the scored tokens are predicted",
        what_it_does_not_show="test accuracy; and one training is no evidence on others",
    )


def _scores(run: RunConfig, store: Store) -> pd.DataFrame:
    test = store.test(run)
    rows = {
        "test accuracy": test["accuracy"],
        "accuracy of whole items": test["item_accuracy"],
        "loss (nats)": test["loss"],
        "best attainable accuracy": test["ceiling"],
    }
    rows |= {f"predictor: {name}": value for name, value in test["baselines"].items()}
    rows |= {"updates": test["steps"], "stopped because": test["stopped"], "seconds": test["seconds"]}
    return pd.DataFrame({"what": list(rows), "value": list(rows.values())})
