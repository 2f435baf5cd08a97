"""The page about one transfer: which part carries the gain, which head, and how it was computed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from analyses import figures
from analyses.report.document import Report
from analyses.report.sections import arms
from analyses.report.sections.transfer_findings import N_ITEMS, TransferFindings
from mechproc.model.parts import Ablation
from mechproc.statistics.comparisons import Family
from mechproc.statistics.survival import Crossing, restricted_mean


def report(findings: TransferFindings) -> Report:
    """The page."""
    study = findings.study
    page = Report(study.name, f"{len(study.seeds)} paired seeds, {len(study.arms)} arms")
    page.heading("Main finding")
    for note in findings.verdicts.notes():
        page.note(f"Note: {note}.")
    for sentence in findings.sentences():
        page.text(sentence)
    _arms(page, findings)
    _donors(page, findings)
    _ablations(page, findings)
    _attention(page, findings)
    page.heading("Settings and environment")
    page.table(
        arms.settings(study.run_of(findings.arm, study.seeds[0]), findings.scores.provenance[0][1]),
        f"The {findings.arm} arm, seed {study.seeds[0]}; other seeds differ in the seed alone.",
    )
    return page


def _arms(page: Report, findings: TransferFindings) -> None:
    n = len(findings.study.seeds)
    page.heading("Which part carries the gain")
    page.table(
        arms.moved(findings.study),
        "What each arm starts from. Everything that is not named is fresh, and equal in all arms of a seed.",
    )
    levels = {key: value for key, value in findings.scores.metadata.items() if key != "warnings"}
    scores = dataclasses.replace(findings.scores, metadata=levels)  # the warnings are the notes at the top of the page
    page.figure(figures.arms(scores), "Test accuracy of every seed after training on the task.", scores)
    for family in findings.study.families:
        judged = [verdict for verdict in findings.verdicts if verdict.family == family]
        if judged:
            page.table(arms.verdict_rows(judged), _family_caption(family, n), _remarks(findings, family))
    page.figure(figures.curves(findings.curves), "Validation accuracy during training on the task.", findings.curves)
    page.table(
        _crossing_table(findings),
        f"How many of the {n} seeds reached a test accuracy of {findings.crossed:.0%}, and the mean number of steps "
        "until validation accuracy reached it, where seeds that did not are counted with all their steps (restricted "
        "mean of the Kaplan-Meier curve). A mean accuracy over such seeds is mostly the fraction that crossed.",
    )


def _donors(page: Report, findings: TransferFindings) -> None:
    donors = findings.donors
    page.heading("The pretrained models on their own rule")
    n_better = int(np.sum(donors["accuracy"].to_numpy() > donors["baseline"].to_numpy()))
    page.text(
        f"{n_better} of {len(donors)} pretrained models are better at their rule than the best baseline, a predictor "
        "that does not use the whole rule. A baseline can itself be a mechanism, such as attending behind an earlier "
        "copy of a token; a model that is no better than the baseline may transfer that mechanism alone."
    )
    page.table(
        arms.donor_rows(donors),
        "Test accuracy of each pretrained model on its own rule, the best attainable accuracy, and the best baseline.",
    )


def _ablations(page: Report, findings: TransferFindings) -> None:
    page.heading("Ablation of single parts")
    page.text(
        f"The trained models of the {findings.arm} arm with one part ablated at a time, on {N_ITEMS} test items. What "
        "each ablation does at each part is in the part table (mechproc parts)."
    )
    by = f"its attention on the target '{findings.mask}' after training (validation items)"
    for kind in Ablation:
        effects = findings.ablations.select(ablation=kind.value)
        drawn = figures.ablation_map(effects, findings.ranked_heads, by)
        page.figure(drawn, f"{kind.value.capitalize()} ablation.", effects)


def _attention(page: Report, findings: TransferFindings) -> None:
    study, mask, seed = findings.study, findings.mask, findings.example_seed
    head = findings.heads[seed]
    page.heading("Attention of the heads")
    page.figure(
        figures.before_after(findings.target_attention, mask, findings.ranked_heads),
        f"Attention on the target '{mask}', on validation items, before and after training, {findings.arm} arm.",
    )
    names = study.run_of(findings.arm, seed).procedure.token_names
    tokens = [names[t] for t in findings.example_patterns.metadata["tokens"][0]]
    layer, index = (int(number) for number in head[1:].split(".H"))
    page.figure(
        figures.attention_pattern(findings.example_patterns.select(item=0, layer=layer, head=index), tokens),
        f"The head with the most attention on the target '{mask}', {head} of the median seed ({seed}).",
    )
    page.figure(
        figures.attention_view(findings.example_patterns, token_names=names),
        f"All heads of the median seed ({seed}) on one test item. Its head with the most attention on the target "
        f"'{mask}' is {head}.",
    )


def _crossing_table(findings: TransferFindings) -> pd.DataFrame:
    study = findings.study
    budget = float(study.run_of(findings.arm, study.seeds[0]).training.last_step)
    rows = []
    for arm in study.arms:
        steps = findings.crossings.select(arm=arm).values
        crossings = [Crossing(budget if np.isnan(step) else step, not np.isnan(step)) for step in steps.tolist()]
        rows.append(
            {
                "arm": arm,
                "crossed": f"{findings.n_crossed[arm]} of {len(crossings)}",
                "restricted mean steps": f"{restricted_mean(crossings, budget):.0f} of {budget:.0f}",
            }
        )
    return pd.DataFrame(rows)


def _remarks(findings: TransferFindings, family: Family) -> list[str]:
    return [
        f"{v.comparison.treatment} against {v.comparison.control}: {remark}."
        for v in findings.verdicts
        if v.family == family
        for remark in v.remarks()
    ]


def _family_caption(family: Family, n_seeds: int) -> str:
    return (
        f"The comparisons, fixed before the run: mean paired difference of test {family.measure} over {n_seeds} seeds, "
        f"its {1 - family.alpha:.0%} interval by inversion of the sign-flip test, and the exact p before and after "
        f"Holm's correction over {len(family.pairs)} comparisons. Does not show: whether longer training would close "
        "the gap."
    )
