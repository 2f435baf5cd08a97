"""A study on a page: what every arm gains on every task, curves, comparisons, donors; or that it was not run yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from analyses import figures
from analyses.figures.svg import NARROW
from analyses.report.document import Report
from analyses.report.sections import arms
from mechproc.result import Result
from mechproc.runs.store import Store
from mechproc.statistics.comparisons import Family
from mechproc.statistics.measures import measure
from mechproc.statistics.verdicts import Verdict
from mechproc.studies.study import Study

RANDOM = "random"
"""The start that the others are compared with."""
MAX_ARMS = 20
"""Arms whose starts are listed on the page; what each of more starts from is in its evidence."""
MAX_LINES = 8
"""Arms in one figure of curves; more are drawn rule by rule."""


def progress(page: Report, study: Study, store: Store) -> None:
    """What the study asks and how much of it was run."""
    n_known = sum(store.has_scores(run) for _, run in study.runs)
    page.text(study.question or f"The study {study.name}.")
    page.text(f"{n_known:,} of {len(study.runs):,} trainings are complete.")


def add(page: Report, study: Study, store: Store, *, begun: bool = False) -> None:
    """The sections of a study, as far as it was run; ``begun``: what it asks stands on the page already."""
    if not begun:
        progress(page, study, store)
    if not any(store.has_scores(run) for _, run in study.runs):
        page.note("Not run yet: there is no score to show. The arms are those that the study plans.")
        page.table(arms.moved(study), "What each arm starts from. Everything that is not named is fresh.")
        return
    scores = study.scores(store)
    page.heading("What each start gains")
    verdicts = study.judge(store, allow_mixed_provenance=True)
    for note in verdicts.notes():
        page.note(f"Note: {note}.")
    _matrices(page, study, store)
    _about_arms(page, study, store)
    for family in study.families:
        judged = [verdict for verdict in verdicts if verdict.family == family]
        if judged:
            _comparisons(page, family, judged)
        else:
            page.note(f"{family.name}: no seed is complete in all arms, so that there is no verdict.")
    page.evidence(scores)
    _curves(page, study, store)
    donors = study.donors(store)
    if len(donors):
        page.heading("The pretrained models on their own rule")
        page.table(arms.donor_rows(donors), "Accuracy of each donor on its own rule, the best attainable one, and that "
                                            "of the best predictor that does not know the rule.")  # fmt: skip
    if len(study.arms) <= MAX_ARMS:
        page.heading("The arms")
        page.table(arms.moved(study), "What each arm starts from. Everything that is not named is fresh.")


def gains(study: Study, store: Store, what: str = "accuracy") -> Result:
    """One measure of each arm less the random start of its task and seed, higher being better: start, task, seed.

    ``"haystack: set, full"`` is the start ``set, full`` on the task ``haystack``; an arm without a task stands under
    the study's name. A task without a random start has its scores as they are, and the name says so.
    """
    scores = study.scores(store, what)
    placed = {arm: _place(arm, study) for arm in study.arms}
    tasks = list(dict.fromkeys(task for task, _ in placed.values()))
    starts = list(dict.fromkeys(start for _, start in placed.values()))
    compared = {task for task in tasks if (task, RANDOM) in placed.values()}
    if compared == set(tasks):
        starts = [start for start in starts if start != RANDOM] or starts
    values = np.full((len(starts), len(tasks), len(study.seeds)), np.nan)
    by_place = {place: scores.select(arm=arm).values for arm, place in placed.items()}
    sign = 1.0 if measure(what).higher_is_better else -1.0
    for (task, start), of_arm in by_place.items():
        if start in starts:
            base = by_place[task, RANDOM] if task in compared else 0.0
            values[starts.index(start), tasks.index(task)] = sign * (of_arm - base) if compared else of_arm
    names: dict[str, dict[str, str]] = {}
    for arm, (task, start) in placed.items():
        names.setdefault(task, {})[start] = arm
    absent = [({"start": start, "task": task}, "the study has no such arm")
              for start in starts for task in tasks if (task, start) not in by_place]  # fmt: skip
    against = "" if not compared else ", against the random start of the seed"
    return Result(
        name=f"{scores.name}{against}",
        values=values,
        axes=("start", "task", "seed"),
        coordinates={"start": starts, "task": tasks, "seed": study.seeds},
        unit=scores.unit,
        direction="positive: better than the random start" if compared else scores.direction,
        what_it_does_not_show=scores.what_it_does_not_show,
        undefined=absent,
        metadata={"arms": names},
    )


# ---- inside ----------------------------------------------------------------------------------------------------------


def _matrices(page: Report, study: Study, store: Store) -> None:
    """A matrix for each measure that is compared."""
    for what in dict.fromkeys([family.measure for family in study.families] or ["accuracy"]):
        found = gains(study, store, what)
        known = [start for start in found.coordinates["start"] if np.isfinite(found.select(start=start).values).any()]
        left_out = len(found.coordinates["start"]) - len(known)
        if not known:
            continue
        note = f" {left_out} starts of which no run is complete are left out." if left_out else ""
        page.figure(figures.arm_matrix(found.select(start=known)), f"Starts by tasks.{note}", found)


def _comparisons(page: Report, family: Family, judged: Sequence[Verdict]) -> None:
    """The comparisons of a family under short names; of one that only describes there is no correction and no word."""
    rows = arms.verdict_rows(judged)
    tasks = {arm.partition(": ")[0] for arm in family.arms}
    if len(tasks) == 1:
        rows["comparison"] = rows["comparison"].str.replace(f"{tasks.pop()}: ", "", regex=False)
    caption = (
        f"The comparisons of {family.name}, fixed before the run: mean paired difference of {family.measure}, its 95 % "
        "interval by inversion of the sign-flip test, "
    )
    if family.descriptive:
        rows = rows.drop(columns=["p after Holm", "verdict"])
        page.table(rows, f"{caption}the exact p. They describe: p is not corrected, and no verdict is drawn.")
    else:
        page.table(rows, f"{caption}the exact p before and after Holm's correction.")


def _about_arms(page: Report, study: Study, store: Store) -> None:
    """What the evidence on an arm says beside its scores."""
    for arm in study.arms:
        runs = study.by_arm[arm]
        if not any(store.has_scores(run) for run in runs.values()):
            continue
        first = next(iter(runs.values()))
        start, about = arms.start(first.recipe), page.about(arm)
        changed = f" Changed afterwards: {start['changed after it was moved']}." if first.recipe.perturb else ""
        about.text(f"Trained on {first.procedure.short_name}. Moved: {start['moved']}.{changed}")
        named = [f"seed {seed}: {run.name}" for seed, run in runs.items() if store.has_scores(run)]
        about.note(f"Runs: {', '.join(named)}.")


def _curves(page: Report, study: Study, store: Store) -> None:
    curve = study.curves(store)
    page.heading("Along the training")
    tasks: dict[str, list[str]] = {}
    for arm in study.arms:
        if np.isfinite(curve.select(arm=arm).values).any():
            tasks.setdefault(_place(arm, study)[0], []).append(arm)
    for task, members in tasks.items():
        groups = _groups(members, study)
        width = None if len(groups) == 1 else NARROW
        drawn = [
            figures.curves(_thinned(_titled(curve.select(arm=group), group, rule, task)), width=width, title=title)
            for title, rule, group in groups
        ]
        page.figure(drawn, f"Validation accuracy on {task}.", curve.select(arm=members))


def _groups(members: Sequence[str], study: Study) -> list[tuple[str, str, list[str]]]:
    """Title, rule and arms of each figure: all of a task, or rule by rule beside the random start."""
    task = _place(members[0], study)[0]
    if len(members) <= MAX_LINES:
        return [(task, "", list(members))]
    random = [arm for arm in members if _place(arm, study)[1] == RANDOM]
    rules: dict[str, list[str]] = {}
    for arm in members:
        if arm not in random:
            rules.setdefault(_place(arm, study)[1].partition(",")[0], []).append(arm)
    room = MAX_LINES - len(random)
    found = []
    for rule, group in rules.items():
        parts = [group[n : n + room] for n in range(0, len(group), room)]
        for n, part in enumerate(parts, start=1):
            of = f" ({n} of {len(parts)})" if len(parts) > 1 else ""
            found.append((f"{task}: {rule}{of}", rule, random + part))
    return found


def _titled(curve: Result, group: Sequence[str], rule: str, task: str) -> Result:
    """The curves of a group under short names: without the task and the rule, which the title says."""
    short = [arm.removeprefix(f"{task}: ").removeprefix(f"{rule}, ") for arm in group]
    known = np.flatnonzero(np.isfinite(curve.values).any(axis=(0, 2))).tolist()
    curve = curve.select(seed=[curve.coordinates["seed"][n] for n in known])
    named = {**curve.coordinates, "arm": short}
    return dataclasses.replace(curve, name=f"{task}: accuracy", coordinates=named, undefined=(), provenance=())


def _thinned(curve: Result) -> Result:
    """The steps at which one of the arms has a value."""
    known = np.flatnonzero(np.isfinite(curve.values).any(axis=(0, 1))).tolist()
    return curve.select(step=[curve.coordinates["step"][n] for n in known])


def _place(arm: str, study: Study) -> tuple[str, str]:
    task, mark, start = arm.partition(": ")
    return (task, start) if mark else (study.name, arm)
