"""``mechproc study list|plan|run|results|claims|compare-paper|what-transfers|pack``: studies by name or from a file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechproc.cli import executors
from mechproc.errors import require

if TYPE_CHECKING:
    from mechproc.runs.store import Store
    from mechproc.statistics.claim_verdicts import ClaimVerdict
    from mechproc.studies.study import Study


def add(subparsers: Any) -> None:
    """Declare the noun."""
    parser = subparsers.add_parser("study", help="list, plan, run or read the studies; claims and their verdicts")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="the project's studies, one line each")
    for name, text in (
        ("plan", "trainings, minutes measured on this machine, disk, and the seeds that each comparison needs"),
        ("run", "train what is missing"),
        ("results", "the score of every seed, and the verdicts"),
        ("claims", "the declared claims and what the runs say of them (default: of every study)"),
    ):
        action = actions.add_parser(name, help=text)
        several = "?" if name == "claims" else None
        action.add_argument("study", metavar="NAME|FILE.py", nargs=several, help="a study's name, or a file")
        action.add_argument("--scale", choices=["laptop", "paper"], help="size of the study (default: its own)")
        action.add_argument("--seeds", type=int, metavar="N", help="how many seeds (default: the study's own)")
        _add_places(action)
        if name in ("results", "claims"):
            action.add_argument(
                "--allow-mixed-provenance", action="store_true", help="judge runs of a seed that differ in rounding"
            )
        if name in ("plan", "run"):
            action.add_argument("--only", default="*", metavar="PATTERN", help="only arms with such a name: 'set*'")
            action.add_argument("--only-seeds", metavar="SEEDS", help="only these seeds: 10..14,17")
            action.add_argument("--workers", type=int, help="processes (default: one for each core)")
        if name == "run":
            executors.add_options(action)
        if name == "claims":
            action.add_argument(
                "--write", type=Path, action="append", metavar="PAGE.md", help="put all claims between a page's marks"
            )
        if name == "results":
            action.add_argument("--measure", action="append", help="such as 'steps to 0.5' (default: as compared)")
            action.add_argument("--csv", type=Path, help="write one row for each run to this file")
            action.add_argument("--parquet", type=Path, help="the same as Parquet")
    compare = actions.add_parser("compare-paper", help="every accuracy that the paper reports, beside ours")
    _add_places(compare)
    compare.add_argument("--csv", type=Path, help="write one row for each cell and seed to this file")
    compare.add_argument("--write", type=Path, metavar="PAGE.md", help="put the table between the marks of this page")
    predict = actions.add_parser("what-transfers", help="what predicts that a donor carries something: the search")
    _add_places(predict)
    predict.add_argument("--measure-donors", action="store_true", help="measure the donors whose weights are there")
    predict.add_argument(
        "--statistics", type=Path, default=Path("results/transferable_donors.json"), help="where measures are kept"
    )
    predict.add_argument("--write", type=Path, metavar="PAGE.md", help="put the results between the marks of this page")
    predict.add_argument("--figure", type=Path, metavar="FILE.html", help="draw the crossings")
    pack = actions.add_parser("pack", help="write the weights that ship beside the records, from complete runs")
    pack.add_argument("--store", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    pack.add_argument("--out", type=Path, default=Path("results/weights"), help="folder (default: results/weights)")
    parser.set_defaults(run=run)


def _add_places(action: Any) -> None:
    action.add_argument("--store", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    action.add_argument(
        "--records", type=Path, default=Path("results/records"), help="records of runs (default: results/records)"
    )


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    actions = {"list": _list, "plan": _plan, "run": _run, "results": _results, "claims": _claims}
    actions |= {"compare-paper": _compare_paper, "what-transfers": _what_transfers, "pack": _pack}
    return actions[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from mechproc.studies import STUDIES
    from mechproc.studies.registry import about

    for name in STUDIES:
        print(f"{name:20}{about(name)}")
    return 0


def _open(args: argparse.Namespace) -> tuple[Study, Store]:
    from mechproc.runs.store import Store
    from mechproc.studies.registry import load

    return load(args.study, args.scale, args.seeds), Store(args.store, args.records)


def _only_seeds(args: argparse.Namespace) -> list[int] | None:
    from mechproc.studies.registry import numbered

    return None if args.only_seeds is None else numbered(args.only_seeds, "--only-seeds")


def _plan(args: argparse.Namespace) -> int:
    from mechproc.studies.plan import POWER, plan
    from mechproc.threads import usable_cores

    study, store = _open(args)
    workers = args.workers or usable_cores()
    planned = plan(study, store, args.only, only_seeds=_only_seeds(args))
    n_missing = len(planned.missing)
    print(f"{study.name}: {len(study.arms)} arms, seeds {_listed(study.seeds)}")
    print(f"trainings: {planned.n_runs} with donors, {planned.n_runs - n_missing} complete, {n_missing} to do")
    whole, shared = _minutes(planned.seconds), _minutes(planned.seconds / workers)
    print(f"time: {whole} of one core, {shared} with {workers} workers; measured now:")
    for sample, cost in planned.costs.measured.values():
        model = sample.model
        shape = f"{model.n_layers} layers, {model.n_heads} heads, width {model.d_model}"
        kind = f"{sample.procedure.short_name}, {shape}, batch {sample.training.batch_size}"
        seconds, steps = cost.seconds(sample), sample.training.last_step
        print(f"  {kind}: {1e3 * cost.update:.1f} ms an update, {seconds:.0f} s for {steps:,} updates and their scores")
    print(f"disk: {planned.bytes / 1e6:,.0f} MB")
    for needed in planned.comparisons:
        print(f"  {needed.name}: {needed.n_seeds} seeds so far; {_seeds_text(needed, POWER)}")
    for verdict in study.judge_claims(store, allow_mixed_provenance=True):
        price = verdict.price(study.minutes_per_seed(store, verdict.claim.arms))
        print(f"  claim {verdict.claim.name}: {verdict.word}" + (f"; {price}" if price else ""))
    return 0


def _run(args: argparse.Namespace) -> int:
    from mechproc.cli.progress import RunLines

    executor = executors.chosen(args)
    study, store = _open(args)
    seeds = _only_seeds(args)
    missing = store.missing(study.only(args.only, seeds))
    print(
        f"{study.name}: {len(study.arms)} arms, seeds {_listed(study.seeds)}, {len(missing)} trainings to do",
        flush=True,
    )
    study.complete(store, args.workers, RunLines(), only=args.only, executor=executor, only_seeds=seeds)
    return 0


def _results(args: argparse.Namespace) -> int:
    from mechproc.files import atomic_write

    study, store = _open(args)
    table = study.table(store)
    if args.csv:
        atomic_write(args.csv, table.to_csv(index=False).encode())
    if args.parquet:
        atomic_write(args.parquet, table.to_parquet(index=False))
    print(f"{study.name}: {len(table)} of {len(study.runs)} runs are complete")
    if len(table) == 0:
        return 0
    for measure in args.measure or dict.fromkeys(["accuracy", *(family.measure for family in study.families)]):
        _print_scores(study, store, measure)
    donors = study.donors(store)
    if len(donors):
        print("\ndonors on their own rule:")
        print(donors.to_string(index=False, float_format="{:.4f}".format))
    print()
    verdicts = study.judge(store, allow_mixed_provenance=args.allow_mixed_provenance)
    print(verdicts)
    for family in study.families:
        if not study.complete_seeds(store, family.arms):
            print(f"{family.name}, {family.measure}: no seed is complete in all arms, so that there is no verdict.")
    return 0


def _print_scores(study: Study, store: Store, measure: str) -> None:
    import numpy as np

    scores = study.scores(store, measure)
    factor, form, unit = (100, ".1f", "%") if scores.unit == "fraction" else (1, ".4g", scores.unit)
    width = max(len(arm) for arm in study.arms) + 2
    print(f"\n{scores.name}, {unit} ({scores.direction})")
    print(f"{'':{width}}{'mean':>8}" + "".join(f"{seed:>8}" for seed in study.seeds))
    for arm, row in zip(study.arms, scores.values, strict=True):
        known = row[np.isfinite(row)]
        if len(known):
            cells = "".join(f"{'':>8}" if np.isnan(x) else f"{factor * x:>8{form}}" for x in row)
            print(f"{arm:{width}}{factor * known.mean():>8{form}}{cells}")


def _claims(args: argparse.Namespace) -> int:
    from mechproc.runs.store import Store
    from mechproc.studies import STUDIES, claims_page
    from mechproc.studies.registry import scales

    if args.write:
        require(args.study is None, "NAME", args.study, "left out: the page has the claims of every study")
        store = Store(args.store, args.records)
        written = list(claims_page.verdicts(store, args.allow_mixed_provenance))
        for page in args.write:
            claims_page.write(page, written)
        print(claims_page.summary([verdict for _, verdict in written]))
        return 0
    found: list[ClaimVerdict] = []
    names = [args.study] if args.study else list(STUDIES)
    for name in names:
        args.study = name
        if args.scale and len(names) > 1 and not scales(name):
            continue
        study, store = _open(args)
        for verdict in study.judge_claims(store, allow_mixed_provenance=args.allow_mixed_provenance):
            found.append(verdict)
            price = verdict.price(study.minutes_per_seed(store, verdict.claim.arms))
            print(f"{verdict}\n" + (f"  {price}\n" if price else ""))
    print(claims_page.summary(found))
    return 0


def _compare_paper(args: argparse.Namespace) -> int:
    from mechproc.files import atomic_write
    from mechproc.runs.store import Store
    from mechproc.studies import paper_page
    from mechproc.studies.compare_paper import compare

    compared = compare(Store(args.store, args.records))
    print(f"{'start':32}{'task':20}{'theirs':>8}  {'ours [95 % interval]':24}{'seeds':>6}  word")
    for each in compared:
        cell, ours = each.cell, paper_page.ours(each)
        theirs = f"{100 * cell.accuracy:.1f}"
        print(f"{cell.initialisation:32}{cell.task:20}{theirs:>8}  {ours:24}{len(each.seeds):>6}  {each.word}")
        if each.accuracies:
            print(f"{'':32}{each.arm}: " + ", ".join(f"{100 * accuracy:.1f}" for accuracy in each.accuracies))
    print(paper_page.summary(compared))
    if args.csv:
        atomic_write(args.csv, paper_page.table(compared).to_csv(index=False).encode())
    if args.write:
        paper_page.write(args.write, compared)
    return 0


def _what_transfers(args: argparse.Namespace) -> int:
    from mechproc.result import Result
    from mechproc.runs.store import Store
    from mechproc.studies import transferable_page, transferable_reading

    store = Store(args.store, args.records)
    statistics = Result.load(args.statistics) if args.statistics.exists() else None
    if args.measure_donors:
        from analyses import transferable

        statistics = transferable.run(store, statistics)
        if statistics is not None:
            statistics.save(args.statistics)
    text = transferable_page.markdown(store, statistics)
    print(text)
    if args.write:
        transferable_page.write(args.write, text)
    if args.figure:
        from analyses import figures
        from mechproc.files import atomic_write

        figure = figures.transferable(transferable_reading.crossings(transferable_reading.probes(store)))
        atomic_write(args.figure, figure.to_html().encode())
    return 0


def _pack(args: argparse.Namespace) -> int:
    from mechproc.runs.store import Store
    from mechproc.studies.trained import pack

    for path in pack(Store(args.store), args.out):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _seeds_text(needed: Any, power: float) -> str:
    factor, unit = (100, "points") if needed.unit == "fraction" else (1, needed.unit)
    if needed.spread is None:
        return "two are needed to know how much they differ"
    spread = f"differences vary by {factor * needed.spread:.4g} {unit} (standard deviation)"
    if needed.smallest_effect is None:
        return f"{spread}; no smallest effect of interest was declared"
    seeds = "more than 1,000" if needed.needed is None else str(needed.needed)
    return f"{spread}: {seeds} seeds find {factor * needed.smallest_effect:.4g} {unit} with probability {power:g}"


def _listed(seeds: Sequence[int]) -> str:
    whole = list(seeds) == list(range(seeds[0], seeds[-1] + 1)) and len(seeds) > 2
    return f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds))


def _minutes(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 7200 else f"{seconds / 60:.1f} minutes"
