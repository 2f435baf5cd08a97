"""The tables of ``docs/questions/which-heads.md``, from what ``analyses.circuit.of_rules`` wrote.

    python -m analyses.circuit.page

Each table stands between marks in the page; the sentences around them are written by hand.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from analyses.circuit.compare import N_HALVES
from analyses.circuit.find import circuits
from analyses.circuit.functions import OTHER, by_function, head_functions, similarity
from analyses.circuit.of_rules import CONTRASTS, OF_DONORS
from mechproc.files import read_json
from mechproc.pages import table, write_sections
from mechproc.pretrained import TRANSFERABLE, card
from mechproc.result import Label, Result

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "results" / "analyses" / "circuit"
OF_THE_DONORS = MEASURED / "transferable"
PAGE = ROOT / "docs" / "questions" / "which-heads.md"
QUALITY = {
    "faithfulness": "alone",
    "faithfulness of random edges": "random edges alone",
    "left without the circuit": "the rest alone",
    "incompleteness": "incompleteness",
    "minimality": "edges that matter",
}
STRONG = 0.1
"""The share of what a pair changes that one edge out of a head carries, for the head to be listed."""
MOST_EDGES = 8
Maps = dict[str, dict[str, dict[str, float]]]
Rules = dict[str, list[str]]


def load(folder: Path = MEASURED, rules: Rules = CONTRASTS) -> dict[str, dict[str, Result]]:
    """What was measured, by rule and contrast; ``"attention"`` beside the contrasts. Errors: ``StoreError``."""
    return {
        rule: {name: Result.load(folder / f"{rule}-{name}.json") for name in ("attention", *contrasts)}
        for rule, contrasts in rules.items()
    }


def load_maps(folder: Path = MEASURED, rules: Rules = CONTRASTS) -> Maps:
    """What the maps of each circuit say, by contrast, seed and map. Errors: ``StoreError``."""
    names = [f"{rule}-{name}" for rule, contrasts in rules.items() for name in contrasts]
    return {name: read_json(folder / f"{name}-maps.json") for name in names}


def sections(measured: dict[str, dict[str, Result]], maps: Maps) -> dict[str, str]:
    """The tables by the name of their marks, as Markdown."""
    return {
        "standing": _standing(list(measured)),
        **{f"edges-{rule}": _edges(found) for rule, found in measured.items()},
        **_tables(measured),
        "skip": _skip(measured["set"]["skip"], maps["set-skip"]),
        "copying": _copying({"identity": maps["identity-symbol"]}),
    }


def sections_of_donors(measured: dict[str, dict[str, Result]], maps: Maps) -> dict[str, str]:
    """The tables about donors by the name of their marks, as Markdown."""
    found = {
        "standing": _standing([f"{TRANSFERABLE}{rule}" for rule in measured]),
        **_tables(measured),
        "copying": _copying({name: maps[f"{name}-symbol"] for name in measured if f"{name}-symbol" in maps}),
    }
    return {f"donors-{name}": text for name, text in found.items()}


def every_section() -> dict[str, str]:
    """All tables of the page by the name of their marks. Errors: ``StoreError``."""
    donors = load(OF_THE_DONORS, OF_DONORS), load_maps(OF_THE_DONORS, OF_DONORS)
    return {**sections(load(), load_maps()), **sections_of_donors(*donors)}


def write(page: Path = PAGE) -> None:
    """Put every table into the page. Errors: ``StoreError``."""
    write_sections(page, every_section())


def _tables(measured: dict[str, dict[str, Result]]) -> dict[str, str]:
    """The tables that masters and donors have alike."""
    made = {"quality": _quality, "functions": _functions, "heads": _heads, "similarity": _similarity}
    return {name: of(measured) for name, of in made.items()}


def _each(measured: dict[str, dict[str, Result]]) -> dict[tuple[str, str], tuple[Result, Result]]:
    """The circuits and the attention of each rule and contrast."""
    return {
        (rule, name): (circuit, found["attention"])
        for rule, found in measured.items()
        for name, circuit in found.items()
        if name != "attention"
    }


def _range(values: Sequence[float], spec: str = ".2f") -> str:
    return f"{np.median(values):{spec}} ({min(values):{spec}} to {max(values):{spec}})"


def _change(found: Result) -> dict[str, float]:
    """What the pairs change in each model, in logits."""
    return {seed: clean - found.metadata["corrupt"][seed] for seed, clean in found.metadata["clean"].items()}


def _standing(rules: Sequence[str]) -> str:
    rows = []
    for rule in rules:
        known = card(rule)
        accuracy = [donor["accuracy"] for donor in known["donors"]]
        best = max(known["baselines"].values())
        mastered = f"{len(known['mastered'])} of {len(accuracy)}"
        rows.append([rule, _range(accuracy, ".3f"), f"{best:.3f}", f"{known['ceiling']:.3f}", mastered])
    return table(["rule", "accuracy", "best predictor without the rule", "best attainable", "mastered"], rows)


def _quality(measured: dict[str, dict[str, Result]]) -> str:
    rows = []
    for (rule, name), (found, _) in _each(measured).items():
        scores = found.metadata["evaluation"]
        cells = [_range(list(scores[measure].values())) for measure in QUALITY]
        edges = _range(list(scores["edges"].values()), ".0f")
        rows.append([f"{rule}: {name}", _range(list(_change(found).values()), ".0f"), edges, *cells])
    return table(["contrast", "logits changed", "edges", *QUALITY.values()], rows)


def _functions(measured: dict[str, dict[str, Result]]) -> str:
    rows = []
    for (rule, name), (found, looks) in _each(measured).items():
        names, graphs = head_functions(looks), circuits(found)
        counts = [Counter(names[seed][head] for head in graph.heads) for seed, graph in graphs.items()]
        having = Counter(function for each in counts for function in each)
        for function in sorted(having):
            mean = np.mean([each[function] for each in counts])
            every = np.mean([list(names[seed].values()).count(function) for seed in graphs])
            seeds = f"{having[function]} of {len(graphs)}"
            rows.append([f"{rule}: {name}", function, seeds, f"{mean:.1f}", f"{every:.1f}"])
    return table(["contrast", "heads by where they look", "seeds", "in the circuit", "in the model"], rows)


def _edges(found: dict[str, Result]) -> str:
    rows = []
    for name, circuit in found.items():
        if name == "attention":
            continue
        edges = by_function(circuit, found["attention"])
        for edge, shares in list(zip(edges.coordinates["edge"], edges.values, strict=True))[:MOST_EDGES]:
            there = shares[shares != 0]
            rows.append([name, str(edge), f"{len(there)} of {len(shares)}", _range(there.tolist())])
    return table(["contrast", "edge", "seeds", "share of the change, where it is there"], rows)


def _heads(measured: dict[str, dict[str, Result]]) -> str:
    each = _each(measured)
    seeds = list(next(iter(each.values()))[0].coordinates["seed"])
    columns: list[Callable[[object], str]] = []
    for found, looks in each.values():
        graphs, described, change = circuits(found), _described(looks), _change(found)

        def cell(seed, graphs=graphs, described=described, change=change):
            shares = {head: 0.0 for head in graphs[seed].heads}
            for edge, effect in graphs[seed].effects.items():
                if edge.sender in shares:
                    shares[edge.sender] = max(shares[edge.sender], abs(effect) / abs(change[str(seed)]))
            strong = sorted((head for head in shares if shares[head] >= STRONG), key=lambda head: -shares[head])
            return ", ".join(f"{head} ({described[seed][head]})" for head in strong) or "none"

        columns.append(cell)
    head = ["seed", *(f"{rule}: {name}" for rule, name in each)]
    return table(head, [[str(seed), *(column(seed) for column in columns)] for seed in seeds])


def _best(maps: dict[str, float], kind: str) -> str:
    """The map of a kind in which most tokens point at themselves."""
    of_kind = {name: share for name, share in maps.items() if f".{kind}:" in name}
    name = max(of_kind, key=lambda each: of_kind[each], default="")
    return f"{name} {of_kind[name]:.2f}" if name else "none"


def _skip(found: Result, maps: dict[str, dict[str, float]]) -> str:
    accuracy = {donor["seed"]: donor["accuracy"] for donor in card("set")["donors"]}
    scores, rows = found.metadata, []
    for seed in found.coordinates["seed"]:
        label = str(seed)
        numbers = [scores["clean"][label], scores["corrupt"][label]]
        rows.append([label, f"{accuracy[int(seed)]:.3f}", f"{scores['intact_accuracy'][label]:.2f}",
                     *(f"{number:.1f}" for number in numbers), f"{scores['evaluation']['faithfulness'][label]:.2f}",
                     _best(maps[label], "QK")])  # fmt: skip
    head = ["seed", "accuracy", "right where it must skip", "logit difference, clean", "corrupt", "alone"]
    return table([*head, "QK map with most tokens that look for themselves"], rows)


def _copying(maps: Maps) -> str:
    """For each seed of each rule the OV map of its circuit in which most tokens raise their own logit most."""
    seeds = next(iter(maps.values()))
    return table(
        ["seed", *maps], [[seed, *(_best(of_rule[seed], "OV") for of_rule in maps.values())] for seed in seeds]
    )


def _described(looks: Result) -> dict[Label, dict[str, str]]:
    """The target that names each head, or the one that it looks at most beyond uniform, with its share of attention."""
    targets, uniform = [str(mask) for mask in looks.coordinates["mask"]], looks.metadata["uniform"]
    found: dict[Label, dict[str, str]] = {}
    for s, (seed, names) in enumerate(head_functions(looks).items()):
        found[seed] = {}
        for head, name in names.items():
            shares = looks.values[:, int(head[1]), int(head.partition("H")[2]), s]
            excess = [(share - uniform[t]) / (1 - uniform[t]) for t, share in zip(targets, shares, strict=True)]
            function = name.partition(" ")[2]
            best = int(np.argmax(excess)) if function == OTHER else targets.index(function)
            found[seed][head] = f"{f'{OTHER}: ' if function == OTHER else ''}{targets[best]} {shares[best]:.2f}"
    return found


def _similarity(measured: dict[str, dict[str, Result]]) -> str:
    profiles = {f"{rule}: {name}": by_function(*pair) for (rule, name), pair in _each(measured).items()}
    rng, rows = np.random.default_rng(0), []
    for name, first in profiles.items():
        cells = []
        for second in profiles.values():
            values = []
            for _ in range(N_HALVES):
                seeds = rng.permutation(first.coordinates["seed"]).tolist()
                ours, theirs = seeds[: len(seeds) // 2], seeds[len(seeds) // 2 :]
                values.append(similarity(first.select(seed=ours), second.select(seed=theirs)))
            cells.append(f"{np.mean(values):.2f}")
        rows.append([name, *cells])
    return table(["contrast", *profiles], rows)


if __name__ == "__main__":
    write()
    sys.exit(0)
