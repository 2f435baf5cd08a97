"""Where each latent can be read by a linear probe, beside the baselines that say how much that means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analyses.interventions.standing import standing
from analyses.models import Models, by_seed, sized_threads, untrained
from analyses.probing import fit
from analyses.probing.rows import Positions, Question, activations_at, questions, split_items
from analyses.probing.sites import sites_of
from mechproc.procedures.base import Procedure
from mechproc.progress import progress
from mechproc.result import Result, Where

N_UNTRAINED = 2
"""Untrained models whose mean is the baseline."""
QUANTITIES = {
    "accuracy": "of the probe, on test rows",
    "majority": "accuracy of always saying the most frequent value",
    "untrained": "accuracy of probes of untrained models of the same shape",
    "control": "accuracy of a probe of control labels, a random value for each token (Hewitt and Liang 2019)",
    "selectivity": "accuracy less control",
    "description length": "of the labels, online code over uniform code (Voita and Titov 2020); lower is better",
    "r2": "share of the variance that ridge regression explains, of ordinal latents",
    "untrained r2": "the same for untrained models",
}
"""What is measured of each latent at each site, all as fractions."""
FITTED = ("accuracy", "untrained", "control", "selectivity", "description length")
REGRESSED = ("r2", "untrained r2")
DOES_NOT_SHOW = (
    "that the model uses what a probe reads, or that the site computed it. On 100 plantings of each "
    "family a probe flagged a decoy, which holds the answer where nothing reads it, in 100 %, and parts without effect "
    "in 0 to 23 %, by family; a probe of the answer misses what carries a summand or a key. Use is measured by "
    "causal_effect"
)


@sized_threads
def run(
    models: Models,
    rule: Procedure,
    latents: Sequence[str] | None = None,
    sites: Sequence[str] | None = None,
    *,
    positions: Positions = "defined",
    seed: int = 0,
    n_items: int | None = None,
) -> Result:
    """How well linear probes read each latent at each site: axes ``latent``, ``site``, ``quantity`` and ``seed``.

    All quantities are fractions (``QUANTITIES`` says what each is); higher means that more can be read, except for the
    description length. Probes are fitted to at most 1,000 positions of the first ``n_items`` (500 by default)
    validation items of ``seed``, and tested on at most 2,000 positions of as many test items: no sequence is in both.
    A probe is to be held against its three baselines: the most frequent value, an untrained model, and a control task.

    - ``models``: one for each seed, all of one shape. Every model gets the same rows;
    - ``rule``: the procedure, which defines the latents;
    - ``latents``: some of ``rule.latent_names``; ``None``: all;
    - ``sites``: see ``analyses.probing.all_sites``; ``None``: the residual stream, every head's z, what attention and
      MLP of each layer write;
    - ``positions``: ``"defined"`` (wherever the latent has a value), ``"scored"`` (of these the scored ones), or whole
      numbers [k].

    Undefined are the cells of a latent with too few values at these positions, or that never changes there; accuracies
    of one with more than 64 different values; R squared of one whose values have no order. One model of two layers
    and width 16 takes about 20 seconds for all latents at all sites, with each latent and site a tenth of a second.

    Errors: ``ConfigError`` for a latent that the rule lacks, naming those that it has, for positions that do not exist,
    for models or items that do not fit; ``PartError`` for a site that does not exist.
    """
    of_seed = by_seed(models)
    cfg = next(iter(of_seed.values())).cfg
    sites_at = sites_of(sites, cfg)
    train, test = split_items(rule, n_items, seed)
    asked = questions(rule, latents, train, test, cfg, positions, seed)
    columns = list(QUANTITIES)
    values = np.full((len(asked), len(sites_at), len(columns), len(of_seed)), np.nan)

    def put(question: int, site: int, quantity: str, column: int | slice, value: float) -> None:
        values[question, site, columns.index(quantity), column] = value

    baselines = np.full((N_UNTRAINED, len(asked), len(sites_at), 2), np.nan)
    for number, model in enumerate(untrained(cfg, N_UNTRAINED)):
        x, _ = activations_at(model, train, sites_at, f"untrained {number}")
        x_test, _ = activations_at(model, test, sites_at, f"untrained {number}")
        for row, question in enumerate(asked):
            for place, name in enumerate(sites_at):
                baselines[number, row, place] = _read(question, x[name], x_test[name])
    accuracy: dict[str, float] = {}
    for column, (label, model) in enumerate(progress(of_seed.items(), "probing")):
        x, _ = activations_at(model, train, sites_at, label)
        x_test, accuracy[str(label)] = activations_at(model, test, sites_at, label)
        for row, question in enumerate(asked):
            for place, name in enumerate(sites_at):
                right, explained = _read(question, x[name], x_test[name])
                put(row, place, "accuracy", column, right)
                put(row, place, "r2", column, explained)
                control, length = _controls(question, x[name], x_test[name])
                put(row, place, "control", column, control)
                put(row, place, "selectivity", column, right - control)
                put(row, place, "description length", column, length)
    for row, question in enumerate(asked):
        if not question.why_not:
            put(row, slice(None), "majority", slice(None), fit.majority(question.train.label, question.test.label))  # type: ignore[arg-type]
        for place in range(len(sites_at)):
            put(row, place, "untrained", slice(None), float(baselines[:, row, place, 0].mean()))
            put(row, place, "untrained r2", slice(None), float(baselines[:, row, place, 1].mean()))
    coordinates = {
        "latent": [question.latent for question in asked],
        "site": list(sites_at),
        "quantity": columns,
        "seed": list(of_seed),
    }
    known = standing(rule, test, accuracy, "accuracy")
    known = {field: known[field] for field in known if field not in ("baselines", "ceiling")}  # those of the task
    return Result(
        name="what linear probes read",
        values=values,
        axes=tuple(coordinates),
        coordinates=coordinates,
        unit="fraction",
        direction="higher: more can be read (description length: lower)",
        what_it_does_not_show=f"{DOES_NOT_SHOW}.",
        undefined=_undefined(asked),
        metadata={
            **known,
            "procedure": rule.to_dict(),
            "seed": seed,
            "n_items": len(train),
            "positions": positions if isinstance(positions, str) else [int(p) for p in positions],
            "rows": {q.latent: {"train": len(q.train), "test": len(q.test), "values": len(q.values)} for q in asked},
            "quantities": QUANTITIES,
            "n_untrained": N_UNTRAINED,
            "probe": {"C": fit.C, "alpha": fit.ALPHA, "tolerance": fit.TOLERANCE, "max_iter": fit.MAX_ITERATIONS},
        },
    )


def _read(question: Question, x: np.ndarray, x_test: np.ndarray) -> tuple[float, float]:
    """Accuracy of a classifier, and R squared of a regression; NaN where there is none."""
    right = explained = np.nan
    if question.why_not:
        return right, explained
    rows, tested = question.train.of(x), question.test.of(x_test)
    if not question.why_no_classifier:
        right = float(fit.classifier(rows, question.train.label).score(tested, question.test.label))
    if question.ordinal:
        explained = fit.explained(fit.regression(rows, question.train.label), tested, question.test.label)
    return right, explained


def _controls(question: Question, x: np.ndarray, x_test: np.ndarray) -> tuple[float, float]:
    """Accuracy of the control probe, and the description length of the latent; NaN where there is none."""
    if question.why_no_classifier:
        return np.nan, np.nan
    rows = question.train.of(x)
    control = fit.classifier(rows, question.control_train.label)
    return (
        float(control.score(question.control_test.of(x_test), question.control_test.label)),
        fit.description_length(rows, question.train.label, len(question.values)),
    )


def _undefined(asked: Sequence[Question]) -> list[tuple[Where, str]]:
    undefined: list[tuple[Where, str]] = []
    for question in asked:
        if question.why_not:
            undefined.append(({"latent": question.latent}, question.why_not))
            continue
        if question.why_no_classifier:
            undefined += [({"latent": question.latent, "quantity": q}, question.why_no_classifier) for q in FITTED]
        if not question.ordinal:
            undefined += [({"latent": question.latent, "quantity": q}, "its values have no order") for q in REGRESSED]
    return undefined
