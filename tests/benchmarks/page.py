"""The record as a page of tables."""

from __future__ import annotations

from typing import Any

TITLES = {
    "steps": "One update on 1,000 items, one thread",
    "trainings": "Trainings of 100 updates (data, updates, validations, test), all cores",
    "data": "What making the data costs, one thread for the updates",
    "growth": "An update on haystack (batch 250, one thread; threads: batch 1,000) as one size grows",
    "memory": "Most memory of a process that trains on haystack, batch 1,000",
    "interventions": "Activation patching, one thread",
    "many_runs": "A store of very many finished runs, each command in a process of its own",
    "gpu": "One update on a GPU",
    "populations": "Trainings of 10,000 updates an hour, stacked, beside one GPT-2 of transformers at a time",
}


def of(record: dict[str, Any]) -> str:
    """All sections in a fixed order, each with the machine it was measured on."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; medians of interleaved rounds. Read the ratios, not the seconds.",
    ]
    for name, title in TITLES.items():
        if name in record:
            machine, found = record[name]["machine"], record[name]["measured"]
            lines += ["", f"## {title}", "", *_TABLES.get(name, _times)(found), ""]
            lines += [", ".join(f"{key} {value}" for key, value in machine.items())]
    return "\n".join(lines) + "\n"


def _times(found: dict[str, Any]) -> list[str]:
    """A row for each contestant of each task, with its time relative to the first, the CPU kernel."""
    rows = ["| task | way | ms | times the CPU kernel |", "| --- | --- | --- | --- |"]
    for task, seconds in found.items():
        if isinstance(seconds, dict):
            first = seconds.get("cpu") or next(iter(seconds.values()))
            rows += [f"| {task} | {way} | {1e3 * s:.1f} | {s / first:.1f} |" for way, s in seconds.items()]
    return rows


def _data(found: dict[str, Any]) -> list[str]:
    rows = [
        "| task | update alone, ms | with its data | data alone | added by the data |",
        "| --- | --- | --- | --- | --- |",
    ]
    for task, seconds in found.items():
        alone, beside, data = (seconds[k] for k in ("steps alone", "steps with their data", "data alone"))
        rows += [f"| {task} | {1e3 * alone:.1f} | {1e3 * beside:.1f} | {1e3 * data:.1f} | {beside / alone - 1:+.1%} |"]
    return rows


def _growth(found: dict[str, Any]) -> list[str]:
    rows = ["| what grows | to | CPU kernel, ms | torch, ms | ratio |", "| --- | --- | --- | --- | --- |"]
    for what, values in found.items():
        for value, s in values.items():
            cpu, torch = s["cpu"], s["torch"]
            rows += [f"| {what} | {value} | {1e3 * cpu:.1f} | {1e3 * torch:.1f} | {torch / cpu:.1f} |"]
    return rows


def _memory(found: dict[str, Any]) -> list[str]:
    return ["| way | MB |", "| --- | --- |", *(f"| {way} | {mb} |" for way, mb in found.items())]


def _interventions(found: dict[str, Any]) -> list[str]:
    rows = ["| sweep | ours, ms | transformer_lens.patching, ms | ratio | largest difference, logits |"]
    rows.append("| --- | --- | --- | --- | --- |")
    for sweep, s in found.items():
        ours, theirs = (1e3 * s[way] for way in ("ours", "transformer_lens.patching"))
        rows.append(f"| {sweep} | {ours:.0f} | {theirs:.0f} | {s['ratio']:.0f} | {s['largest difference']:.1e} |")
    return rows


def _populations(found: dict[str, Any]) -> list[str]:
    rows = [
        f"On {found['device']}.",
        "",
        "| task | population | runs an hour, items ready | with the making of items | times GPT-2 |",
        "| --- | --- | --- | --- | --- |",
    ]
    fills = []
    for task, measured in found.items():
        if task == "device":
            continue
        gpt2 = measured["transformers GPT-2, sdpa"]
        rows += [f"| {task} | transformers GPT-2 | {gpt2:.2f} | | 1.0 |"]
        for size, runs in measured["ready"].items():
            rows += [f"| {task} | {size} | {runs:.2f} | {measured['with data'][size]:.2f} | {runs / gpt2:.1f} |"]
        size = measured["fills"]
        fills += [
            f"{task}: {f'a population of {size} fills it' if size else 'not filled by the largest that was tried'}."
        ]
    return [*rows, "", *fills]


def _many_runs(found: dict[str, Any]) -> list[str]:
    columns = ("seconds, imports included", "of a processor", "MB at most")
    rows = [f"| of {found['runs']:,} runs | {' | '.join(columns)} |", "| --- | --- | --- | --- |"]
    for name, of in found["commands"].items():
        rows.append(f"| `mechproc {name}` | {of['seconds']} | {of.get('processor', '')} | {of['MB']} |")
    return [*rows, "", "Where other work shares the machine, the seconds of a processor are the command's own."]


_TABLES = {
    "many_runs": _many_runs,
    "data": _data,
    "growth": _growth,
    "memory": _memory,
    "interventions": _interventions,
    "populations": _populations,
}
