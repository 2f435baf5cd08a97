"""The tables of these pages that come from files in ``results`` and from cards: ``make tables``.

Each stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``; ``tests/test_tables.py`` holds it to its file.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analyses.planted import page
from mechproc.pages import between, table, write_between
from mechproc.pretrained import TRANSFERABLE, card, shipped
from mechproc.result import Result
from mechproc.runs.config import RunConfig
from mechproc.runs.store import Store
from mechproc.statistics.paired import interval
from mechproc.studies import STUDIES, paper_page
from mechproc.studies.compare_paper import compare
from mechproc.studies.masters import RULES
from mechproc.studies.registry import load, scales
from mechproc.studies.study import Study
from mechproc.studies.transferable import CROSSED, PROBE

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
STORE = Store(ROOT / "none", RESULTS / "records")
"""Records alone."""


def demo() -> str:
    """Accuracy of every arm of the demo, and its verdicts."""
    results = _json("set_to_haystack.json")
    arms = []
    for arm, scores in results["accuracy"].items():
        crossed = f"{results['crossed'][arm]} of {len(scores)}"
        arms.append((arm, f"{100 * sum(scores) / len(scores):.1f}", crossed))
    verdicts = [
        (
            f"{v['treatment']} against {v['control']}",
            f"{100 * v['mean_difference']:+.1f}",
            f"{100 * v['low']:+.1f} to {100 * v['high']:+.1f}",
            f"{v['adjusted_p']:.3f}",
            v["word"],
        )
        for v in results["verdicts"]
    ]
    first = table(("start", "mean, %", "crossed 90 %"), arms)
    second = table(("comparison", "points", "95 % interval", "p after Holm", "verdict"), verdicts)
    return f"{first}\n\n{second}"


def heads() -> str:
    """What the demo's head ablations cost."""
    results = _json("set_to_haystack.json")
    head, others = (
        100 * sum(results[name]) / len(results[name])
        for name in ("accuracy_lost_without_head", "accuracy_lost_without_other_heads")
    )
    return (
        "Mean-ablating the head that looks most from each value to its key, chosen on validation items, costs "
        f"{head:.1f} points, the other heads {others:.1f} on average."
    )


def pretrained() -> str:
    """The accuracy of the shipped models of every rule, between ceiling and best predictor without the rule."""
    rows = []
    for rule in RULES:
        known = card(rule)
        scores = [100 * donor["accuracy"] for donor in known["donors"]]
        numbers = (min(scores), sum(scores) / len(scores), max(scores))
        numbers = (*numbers, 100 * known["ceiling"], 100 * max(known["baselines"].values()))
        mastered = f"{len(known['mastered'])} of {len(scores)}"
        rows.append((rule, *(f"{number:.1f}" for number in numbers), mastered))
    return table(("rule", "lowest", "mean", "highest", "best attainable", "without the rule", "mastered"), rows)


@functools.cache
def _study(name: str) -> Study:
    return load(name, "paper")


def _accuracies(study: str, arm: str) -> list[float]:
    """Test accuracy of every seed of an arm that the records have, at the paper's scale."""
    return [STORE.test(run)["accuracy"] for run in _complete(study, arm).values()]


def _complete(study: str, arm: str) -> dict[int, RunConfig]:
    """The runs of an arm at the paper's scale that the records have, by seed."""
    return {seed: run for seed, run in _study(study).by_arm[arm].items() if STORE.has_scores(run)}


def transferable_models() -> str:
    """The accuracy of the shipped donors on their rules, and of what they were moved to, by the records."""
    study = _study("rules-by-task")
    tasks = [arm.partition(": ")[0] for arm in study.arms if arm.endswith(": random")]
    rows = []
    for name in shipped():
        if not name.startswith(TRANSFERABLE):
            continue
        known, rule = card(name), name.removeprefix(TRANSFERABLE)
        accuracy = np.mean([donor["accuracy"] for donor in known["donors"]])
        levels = (accuracy, known["ceiling"], max(known["baselines"].values()))
        moved = []
        for task in tasks:
            for how in ("full", "attention", "MLPs"):
                arm = f"{task}: {rule}, {how}"
                if scores := _accuracies("rules-by-task", arm) if arm in study.by_arm else []:
                    moved.append(f"{task}, {how} {100 * np.mean(scores):.1f} ({len(scores)} seeds)")
        rows.append((name, *(f"{100 * level:.1f}" for level in levels), "; ".join(moved) or "not run"))
    return table(
        ("donors", "mean, %", "best attainable", "without the rule", "accuracy after training on a task, %"), rows
    )


def study_times() -> str:
    """How many trainings each study has and how long those took whose records are here, at both scales."""
    rows = []
    for name in filter(scales, STUDIES):
        cells = []
        for scale, unit in (("laptop", 60), ("paper", 3600)):
            runs = {run.identity: run for _, one in load(name, scale).runs for run in one.with_donors()}
            known = [STORE.test(run)["seconds"] for run in runs.values() if STORE.has_scores(run)]
            cells += [f"{len(known):,} of {len(runs):,}", f"{sum(known) / unit:.0f}" if known else ""]
        rows.append((f"`{name}`", *cells))
    return table(("study", "laptop: trainings", "minutes of a core", "paper: trainings", "hours of a core"), rows)


def speed() -> str:
    """The CPU kernel's time and how many times longer others take, from the benchmarks."""
    record, rows = _json("benchmarks.json"), []
    others = ("torch", "transformers GPT-2, sdpa", "TransformerLens 4.3 native")
    for section, suffix in {"steps": "one update", "trainings": "training of 100 updates"}.items():
        for task, seconds in record[section]["measured"].items():
            ratios = (f"{seconds[name] / seconds['cpu']:.1f}" if name in seconds else "" for name in others)
            rows.append((f"{task}, {suffix}", f"{1e3 * seconds['cpu']:.1f}", *ratios))
    return table(
        ("", "CPU kernel, ms", "torch engine", "GPT-2 of transformers, sdpa", "TransformerLens 4.3 native"), rows
    )


def calibration() -> str:
    """Hit and false-alarm rates on planted models."""
    return page.markdown(Result.load(RESULTS / "calibration.json"))


def pages() -> str:
    """Size, building time and time to interactive of the page about the largest of the paper's studies."""
    record = _json("pages.json")
    found, on = record["measured"], record["machine"]
    times = ", ".join(f"{ms / 1000:.1f}" for ms in found["interactive_ms"]) or "no Chromium there"
    rows = [
        ("size of the page, MB", found["megabytes"]),
        ("figures on it", found["figures"]),
        ("building it, s", found["build_s"]),
        ("opening it until its scripts have run, s, each of three times", times),
        ("processes that wanted to run at the time (load)", f"{found['load']} on {on['cores']} cores"),
    ]
    return table((found["study"], ""), rows)


def negative() -> str:
    """The number behind each negative result, from the files and the tables that have it."""
    rows = [*_not_found(), *_undecided(), *_of_methods()]
    return table(("entry", "number, with 95 % intervals", "of", "from"), rows)


def _not_found() -> list[tuple[str, str, str, str]]:
    mlps = _verdict("MLPs", "random")
    predictors = _rows(ROOT / "docs" / "transferable.md", "transferable", "predictor")
    best = max(predictors, key=lambda row: float(row["skill, leaving one rule out"]))
    nearest = [float(r["own rule nearest"]) for r in _rows(QUESTIONS / "weights-of-rules.md", "spectrum", "part")]
    known = card("set")
    scores = [100 * donor["accuracy"] for donor in known["donors"]]
    floor = 100 * max(known["baselines"].values())
    worst = max(_rows(QUESTIONS / "which-heads.md", "quality", "contrast"), key=lambda row: row["incompleteness"])
    return [
        ("MLPs of `set` alone in the demo", _points(mlps), f"{mlps['n_seeds']} seeds", DEMO),
        (
            "predictors of transfer",
            f"best skill {best['skill, leaving one rule out']} ({best['predictor']}), p {best['p']}; "
            "0 is no better than the mean",
            f"{best['donors']} donors",
            "[the search](transferable.md)",
        ),
        *(
            (
                f"claim {name}, {'on the laptop' if '(laptop)' in study else 'at the size of the paper'}",
                _refuted(claim["contrasts"]),
                "10 seeds",
                "[claims](claims.md)",
            )
            for (name, study), claim in _claims().items()
            if claim["word"] == "**refuted**"
        ),
        *_contradicted(),
        (
            "all of `eca` on reversed addition, read as vectors instead of tokens",
            _same_seeds("reversed addition", ("eca-vectors, full", "eca, full", "random")),
            "their seeds",
            "`mechproc study results rules-by-task --scale paper`",
        ),
        (
            "one half as a sign of help on reversed addition",
            "; ".join(
                f"{arm}: {_crossed('reversed addition', arm)}"
                for arm in ("random", "set, full", "eca, full", "eca-vectors, full")
            )
            + f" cross within {PROBE.stop_after:,} updates",
            "seeds 10 to 19",
            "[the search](transferable.md)",
        ),
        (
            "rule of a single model from its spectrum",
            f"own rule nearest in {100 * min(nearest):.0f} to {100 * max(nearest):.0f} % of models, by part; "
            "chance 25 %",
            "40 models",
            "[weights of rules](questions/weights-of-rules.md)",
        ),
        (
            "models of `set` that learned to remove duplicates",
            f"{len(known['mastered'])} of {len(scores)} mastered it; mean accuracy {sum(scores) / len(scores):.1f} %, "
            f"without the rule {floor:.1f} %",
            f"{len(scores)} seeds",
            "[shipped models](pretrained.md)",
        ),
        (
            "circuits that are not complete",
            f"incompleteness up to {worst['incompleteness']} of the change, median and range, for {worst['contrast']}",
            "8 seeds",
            "[which heads?](questions/which-heads.md)",
        ),
    ]


def _contradicted() -> list[tuple[str, str, str, str]]:
    """The cells in which the paper's table contradicts ours."""
    return [
        (
            f"{each.cell.initialisation}, {each.cell.task}: the paper has {100 * each.cell.accuracy:.1f} %",
            f"{paper_page.ours(each)} %, minus a random start {paper_page.gained(each)} points",
            f"{len(each.seeds)} seeds",
            "[the paper's table](paper-table.md)",
        )
        for each in compare(STORE)
        if each.word == "contradicted"
    ]


def _same_seeds(task: str, arms: Sequence[str]) -> str:
    """The mean accuracy of arms at the paper's size, each over the seeds of the first that are complete."""
    by_arm = {arm: _complete("rules-by-task", f"{task}: {arm}") for arm in arms}
    seeds = list(by_arm[arms[0]])
    means = {arm: np.mean([STORE.test(runs[seed])["accuracy"] for seed in seeds]) for arm, runs in by_arm.items()}
    found = "; ".join(f"{arm}: {100 * mean:.1f} %" for arm, mean in means.items())
    return f"{found} (seeds {', '.join(map(str, seeds))})"


def _crossed(task: str, arm: str) -> str:
    """How many runs of an arm at the paper's size reach the level by which the search judged donors, in its time."""
    runs = _complete("rules-by-task", f"{task}: {arm}").values()
    curves = [STORE.metrics(run).set_index("step")["token_accuracy"] for run in runs]
    return f"{sum(bool((curve.loc[: PROBE.stop_after] >= CROSSED).any()) for curve in curves)} of {len(curves)}"


def _claims() -> dict[tuple[str, str], dict[str, str]]:
    """The rows of the page of claims, by claim and study."""
    return {(row["claim"], row["study"]): row for row in _rows(ROOT / "docs" / "claims.md", "claims", "claim")}


def _refuted(contrasts: str) -> str:
    """Those of a claim's contrasts that are refuted."""
    return "; ".join(each for each in contrasts.split("; ") if each.endswith(": refuted"))


def _undecided() -> list[tuple[str, str, str, str]]:
    arranged = _verdict("attention", "permuted attention")
    accuracy = _json("set_to_haystack.json")["accuracy"]
    apart = np.array(accuracy["full"]) - np.array(accuracy["attention"])
    within = interval(apart)
    permuted = _accuracies("perturbation", "haystack: permuted")
    claims = _claims()
    claim = claims["6, haystack", "perturbation (paper)"]
    return [
        (
            "arrangement at the paper's size",
            f"permuted attention of `set` ends above 50 % in {sum(a > 0.5 for a in permuted)} of {len(permuted)} "
            f"seeds; {claim['contrasts']}",
            f"{len(permuted)} seeds",
            "[claims](claims.md)",
        ),
        *(
            (f"claim {name}, {size}", claims[name, study]["contrasts"], "10 seeds", "[claims](claims.md)")
            for name, study, size in (
                ("9", "confounders (paper)", "at the paper's size"),
                ("2", "rules by task (laptop)", "on the laptop"),
                ("8", "composition (laptop)", "on the laptop"),
            )
        ),
        (
            "arrangement in the demo",
            f"{_points(arranged)}, p after Holm {arranged['adjusted_p']:.3f}",
            f"{arranged['n_seeds']} seeds",
            DEMO,
        ),
        (
            "the whole model against its attention alone in the demo",
            f"{100 * apart.mean():+.1f} points ({100 * within.low:+.1f} to {100 * within.high:+.1f}), not declared: no "
            "verdict",
            f"{len(apart)} seeds",
            DEMO,
        ),
    ]


def _of_methods() -> list[tuple[str, str, str, str]]:
    used = Result.load(RESULTS / "analyses" / "probing" / "k-dyck-used.json").select(
        latent="depth", site="L0.resid_post"
    )
    changed, random = (used.select(quantity=name) for name in ("patched", "patched, random"))
    within = interval(changed.values - random.values)
    rates = {}
    for method in ("percentile bootstrap", "sign-flip"):
        of = [r["rate"] for r in _json("statistics.json")["rates"]
              if r["n_seeds"] == 8 and r["quantity"] == f"false positive, {method}"]  # fmt: skip
        rates[method] = f"{100 * min(of):.1f} to {100 * max(of):.1f} %"
    return [
        (
            "depth of `k-dyck`, readable and not shown to be used",
            f"{changed.values.mean():.2f} nats for the probe's direction, {random.values.mean():.2f} for a random one: "
            f"{(changed.values - random.values).mean():+.2f} ({within.low:+.2f} to {within.high:+.2f})",
            f"{changed.values.size} seeds",
            "[stack depth](questions/stack-depth.md)",
        ),
        (
            "percentile bootstrap at 8 seeds",
            f"{rates['percentile bootstrap']} false positives where 5 % are announced; the exact test "
            f"{rates['sign-flip']}",
            "20,000 simulations each",
            "`results/statistics.json`",
        ),
    ]


def _verdict(treatment: str, control: str) -> dict[str, Any]:
    """The demo's comparison of two arms."""
    verdicts = _json("set_to_haystack.json")["verdicts"]
    return next(v for v in verdicts if (v["treatment"], v["control"]) == (treatment, control))


def _points(verdict: dict[str, Any]) -> str:
    mean, low, high = (100 * verdict[name] for name in ("mean_difference", "low", "high"))
    return f"{mean:+.1f} points ({low:+.1f} to {high:+.1f})"


def _rows(page: Path, name: str, first: str) -> list[dict[str, str]]:
    """The rows of the table whose first column is ``first``, in a block of a page that a command wrote."""
    lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in between(page, name).splitlines()]
    start = next(n for n, line in enumerate(lines) if line[0] == first)
    end = next((n for n, line in enumerate(lines[start:], start) if len(line) < 2), len(lines))
    return [dict(zip(lines[start], line, strict=True)) for line in lines[start + 2 : end]]


QUESTIONS = ROOT / "docs" / "questions"
DEMO = "[the demo](demo.md)"
TABLES: dict[str, tuple[Path, Callable[[], str]]] = {
    "demo": (ROOT / "docs" / "demo.md", demo),
    "heads": (ROOT / "docs" / "demo.md", heads),
    "pretrained": (ROOT / "docs" / "pretrained.md", pretrained),
    "transferable-models": (ROOT / "docs" / "pretrained.md", transferable_models),
    "speed": (ROOT / "docs" / "training.md", speed),
    "negative": (ROOT / "docs" / "negative.md", negative),
    "pages": (ROOT / "docs" / "report.md", pages),
    "study-times": (ROOT / "docs" / "studies.md", study_times),
    page.NAME: (ROOT / "docs" / "calibration.md", calibration),
}
"""Name of a table -> the page that has it, and what writes it."""


def _json(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


if __name__ == "__main__":
    for name, (path, text) in TABLES.items():
        write_between(path, name, text())
