"""The tables of these pages that come from files in ``results`` and from cards: ``make tables``.

Each stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``; ``tests/test_tables.py`` holds it to its file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analyses.planted import page
from mechproc.pages import table, write_between
from mechproc.pretrained import card
from mechproc.result import Result
from mechproc.studies.masters import RULES

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"


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


def speed() -> str:
    """The CPU kernel's time and how many times longer others take, from the benchmarks."""
    record, rows = _json("benchmarks.json"), []
    others = ("torch", "transformers GPT-2, sdpa", "TransformerLens 4.3 native")
    for section, suffix in {"steps": "one update", "trainings": "whole training (20 updates)"}.items():
        for task, seconds in record[section]["measured"].items():
            ratios = (f"{seconds[name] / seconds['cpu']:.1f}" for name in others)
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


TABLES: dict[str, tuple[Path, Callable[[], str]]] = {
    "demo": (ROOT / "docs" / "demo.md", demo),
    "heads": (ROOT / "docs" / "demo.md", heads),
    "pretrained": (ROOT / "docs" / "pretrained.md", pretrained),
    "speed": (ROOT / "docs" / "training.md", speed),
    "pages": (ROOT / "docs" / "report.md", pages),
    page.NAME: (ROOT / "docs" / "calibration.md", calibration),
}
"""Name of a table -> the page that has it, and what writes it."""


def _json(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


if __name__ == "__main__":
    for name, (path, text) in TABLES.items():
        write_between(path, name, text())
