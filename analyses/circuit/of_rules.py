"""Which heads implement ``identity``, ``set`` and ``k-dyck``: circuits of the shipped models, found and judged.

    python -m analyses.circuit.of_rules --out results/analyses/circuit
    python -m analyses.circuit.of_rules --donors --out results/analyses/circuit/transferable

writes for each contrast a Result and what its maps say, and for each rule where its heads look; with ``--donors`` of
the models that ship as donors for other tasks (``transferable/RULE``). The tables of ``docs/questions/which-heads.md``
are made from them (``analyses.circuit.page``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import numpy as np

from analyses.circuit.compare import N_PAIRS
from analyses.circuit.find import circuits, run
from analyses.circuit.functions import looks
from analyses.circuit.maps import maps
from analyses.interventions.items import Pairs, own_items
from analyses.shipped import asked
from mechproc.errors import require
from mechproc.files import write_json
from mechproc.pretrained import TRANSFERABLE, card, load_pretrained
from mechproc.procedures import Procedure
from mechproc.result import Result

CONTRASTS = {"identity": ["symbol"], "set": ["symbol", "skip"], "k-dyck": ["kind", "nesting"]}
"""The contrasts of each rule: kinds of its minimal pairs, and ``"skip"``, which ``skipped`` makes."""
OF_DONORS = {"identity": ["symbol"], "set": ["symbol"], "stack": ["symbol"], "k-dyck": ["kind", "nesting"]}
"""Those of donors, which ship as ``transferable/RULE``. None of those of ``set`` has learned to skip."""
SEEDS, SEEDS_OF_DONORS = range(8), range(10, 18)
BLOCK, MAX_BLOCKS = 256, 8
"""Items that pairs of ``skipped`` are looked for in, in so many blocks."""


def measure(
    rule: str, contrasts: Sequence[str], seeds: Sequence[int], n_pairs: int = N_PAIRS
) -> Iterator[tuple[str, Result]]:
    """The circuits of each contrast of a shipped rule, and ``"attention"``: the shares of attention on its targets."""
    procedure = Procedure.from_dict(card(rule)["procedure"])
    models = {seed: load_pretrained(rule, seed) for seed in seeds}
    yield "attention", looks(models, procedure)
    for contrast in contrasts:
        if contrast == "skip":
            yield contrast, run(models, skipped(procedure, 2 * n_pairs))
        else:
            yield contrast, run(models, procedure, contrast, n_items=n_pairs)


def diagonals(rule: str, found: Result) -> dict[str, dict[str, float]]:
    """For each seed and each map of its circuit from tokens to tokens: the share of tokens that point at themselves."""
    return {
        str(seed): {
            name: round(each.metadata["diagonal"], 4)
            for name, each in maps(load_pretrained(rule, int(seed)), graph).items()
            if "diagonal" in each.metadata
        }
        for seed, graph in circuits(found).items()
    }


def skipped(rule: Procedure, n: int, seed: int = 0) -> Pairs:
    """Pairs of ``set`` that differ in whether a symbol has been there before, scored where it would be written.

    Clean, a symbol d is a duplicate and is skipped: after the symbol written before it comes the next new one, x.
    Corrupt, the earlier copy of d is a symbol that the item lacks, so that d is new and is written. Both answers are
    in both items, and the token that the prediction is made from is the same. A later symbol becomes a duplicate, so
    that the two answers are equally long. Clean items are test items of ``seed``; their partners may be of any split.
    """
    rng = np.random.default_rng(seed)
    clean, corrupt, places = [], [], []
    for block in range(MAX_BLOCKS):
        items = rule.items(BLOCK, seed=MAX_BLOCKS * seed + block)
        for tokens, n_tokens in zip(items.tokens, items.n_tokens, strict=True):
            made = _skipped(tokens[:n_tokens].tolist(), rule.d_vocab, rng)
            if made is not None and len(clean) < n:
                clean.append(tokens[:n_tokens].tolist())
                corrupt.append(made[0])
                places.append(made[1])
        if len(clean) == n:
            break
    require(len(clean) == n, "n", n, f"at most {len(clean)} for these lengths")
    n_tokens = [len(row) for row in clean]
    scored = np.arange(max(n_tokens)) == np.array(places)[:, None]
    sides = ([row + [rule.pad] * (max(n_tokens) - len(row)) for row in rows] for rows in (clean, corrupt))
    return Pairs(*(own_items(rows, n_tokens, scored) for rows in sides))


def _skipped(tokens: list[int], d_vocab: int, rng: np.random.Generator) -> tuple[list[int], int] | None:
    """A corrupt partner of one item and the position that is scored; ``None`` where the item has none."""
    separator = tokens.index(1)
    written, times = tokens[:separator], {symbol: tokens[:separator].count(symbol) for symbol in tokens}
    new = [place for place, symbol in enumerate(written) if written.index(symbol) == place]
    absent = sorted(set(range(2, d_vocab)) - set(written))
    for place, symbol in enumerate(written):
        before, after = [p for p in new if p < place], [p for p in new if p > place]
        single = [p for p in after[1:] if times[written[p]] == 1]
        if place in new or times[symbol] != 2 or before[-1:] == [written.index(symbol)] or not single or not absent:
            continue
        partner, gone = list(written), single[rng.integers(len(single))]
        partner[written.index(symbol)] = absent[rng.integers(len(absent))]
        others = [partner[p] for p in before if partner[p] == written[p]]
        partner[gone] = others[rng.integers(len(others))]
        return [*partner, 1, *dict.fromkeys(partner)], separator + len(before)
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the files."""
    settings = asked("analyses.circuit.of_rules", "circuits of shipped models", arguments)
    contrasts, seeds = (OF_DONORS, SEEDS_OF_DONORS) if settings.donors else (CONTRASTS, SEEDS)
    settings.out.mkdir(parents=True, exist_ok=True)
    for rule, kinds in contrasts.items():
        shipped = f"{TRANSFERABLE}{rule}" if settings.donors else rule
        for name, found in measure(shipped, kinds, seeds):
            found.save(settings.out / f"{rule}-{name}.json")
            if name in kinds:
                write_json(settings.out / f"{rule}-{name}-maps.json", diagonals(shipped, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
