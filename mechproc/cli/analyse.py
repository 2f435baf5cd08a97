"""``mechproc analyse NAME MODELS...``: analyses of models by name; each is computed once and kept."""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechproc.cli.run import add_allow_code

if TYPE_CHECKING:
    from analyses.registry import Option
    from mechproc.procedures import Procedure

MODELS = "such as set, set:0..9, set:3@100 (after 100 updates), a model file, a run, a study, or STUDY:ARM"
PREFIX = "of_"
"""Of the destinations of an analysis's own options, which are not to be taken for those that all analyses have."""


class Analysis(argparse.ArgumentParser):
    """The parser of one analysis. It reads the analysis's signature when it is used, and not before."""

    analysis: str | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Declare the options, then parse."""
        self._declare()
        return super().parse_known_args(args, namespace)

    def format_help(self) -> str:
        """Declare the options, then print them."""
        self._declare()
        return super().format_help()

    def _declare(self) -> None:
        from analyses.registry import signature

        name, self.analysis = self.analysis, None
        if name is None:
            return
        called = signature(name)
        self.description = f"{called.about}."
        if "study" in called.takes:
            self.usage = f"mechproc analyse {name} STUDY... [options]"
            (positional,) = (action for action in self._actions if action.dest == "models")
            positional.metavar, positional.help = "STUDY", "a study's name, or a file"
            text = "records of its runs (default: results/records)"
            self.add_argument("--records", type=Path, default=Path("results/records"), help=text)
        group = self.add_argument_group("of the analysis")
        for option in called.options:
            _add(group, option)


class Names(argparse.HelpFormatter):
    """A line for each name: the room for names also has what they are indented by, which argparse forgets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "max_help_position": 26})

    def add_argument(self, action: argparse.Action) -> None:
        """Make room for one argument."""
        super().add_argument(action)
        self._action_max_length = max(self._action_max_length, 24)


def add(subparsers: Any) -> None:
    """Declare the noun."""
    from analyses import ANALYSES
    from analyses.registry import about

    text = "ask models where their structure is; Results are kept as files"
    parser = subparsers.add_parser("analyse", help=text, formatter_class=Names)
    actions = parser.add_subparsers(dest="analysis", metavar="NAME", required=True, parser_class=Analysis)
    actions.add_parser("list", help="all analyses, one line each")
    for name in ANALYSES:
        one = actions.add_parser(name, help=about(name), allow_abbrev=False)
        one.analysis = name
        one.usage = f"mechproc analyse {name} MODELS... [options]"  # the options have a line each below
        one.add_argument("models", nargs="+", metavar="MODELS", help=MODELS)
        one.add_argument("--procedure", metavar="RULE", help="what they are run on: a name, FILE.py:Class, or JSON")
        one.add_argument("--store", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
        scale = "of a study: laptop or paper (default: its own)"
        one.add_argument("--scale", choices=["laptop", "paper"], metavar="SIZE", help=scale)
        one.add_argument("--seeds", dest="n_seeds", type=int, metavar="N", help="of a study (default: its own)")
        one.add_argument("--out", type=Path, default=Path("results/analyses"), help="(default: results/analyses)")
        add_allow_code(one)
        one.add_argument("--again", action="store_true", help="compute even what is there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the list of analyses, or the Results for each group of models."""
    if args.analysis == "list":
        return _list()
    from analyses.kept import analyse
    from analyses.registry import signature
    from mechproc.cli.progress import clock
    from mechproc.procedures import allow
    from mechproc.runs.store import Store

    allow(*args.allow_code)
    settings = {o.name: _value(o, getattr(args, PREFIX + o.name)) for o in signature(args.analysis).options}
    found = analyse(
        args.analysis,
        args.models,
        folder=args.out,
        store=Store(args.store, getattr(args, "records", None)),
        procedure=_procedure(args.procedure),
        again=args.again,
        scale=args.scale,
        n_seeds=args.n_seeds,
        **{name: value for name, value in settings.items() if value is not None},
    )
    for kept in found:
        how = "read from" if kept.seconds is None else f"{clock(kept.seconds)}, kept as"
        left = f"\nNot trained yet: seeds {', '.join(map(str, kept.missing))}." if kept.missing else ""
        print(f"{kept.title}\n{kept.result}{left}\n({how} {kept.path})\n")
    for arm in dict.fromkeys(arm for kept in found for arm in kept.absent):
        print(f"No run is trained yet: {arm}")
    return 0


def _list() -> int:
    from analyses import ANALYSES
    from analyses.registry import about

    for name in ANALYSES:
        print(f"{name:18}{about(name)}")
    return 0


def _procedure(text: str | None) -> Procedure | None:
    """A procedure by name, or with settings as a JSON object; a file that it names is executed."""
    from mechproc.errors import ConfigError
    from mechproc.procedures import Procedure
    from mechproc.procedures.from_file import load_all

    if text is None:
        return None
    try:
        plain = json.loads(text) if text.lstrip().startswith("{") else {"kind": text}
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"procedure = {text!r} is not allowed: a name, or a JSON object ({error})") from None
    load_all(plain)
    return Procedure.from_dict(plain)


def _add(group: Any, option: Option) -> None:
    """Declare a parameter of an analysis as an option."""
    name, dest = f"--{option.name.replace('_', '-')}", PREFIX + option.name
    text = f"{option.text} (default: {option.default})" if option.default is not None else option.text
    text = (text or option.name).replace("%", "%%")
    if option.kind is bool:
        group.add_argument(name, dest=dest, action=argparse.BooleanOptionalAction, help=text)
        return
    several: dict[str, Any] = {"nargs": "+"} if option.many else {}
    metavar = "MODELS" if option.models else {int: "N", float: "X"}.get(option.kind, option.name.upper())
    shown: dict[str, Any] = {"choices": option.choices} if option.choices and not option.many else {"metavar": metavar}
    kind = functools.partial(_word_or, option) if option.many and option.choices else option.kind
    group.add_argument(name, dest=dest, type=kind, required=option.required, help=text, **several, **shown)


def _word_or(option: Option, text: str) -> Any:
    """One item of a list, or a word that stands for a whole list."""
    if text in option.choices:
        return text
    try:
        return option.kind(text)
    except ValueError:
        words = " or ".join(map(repr, option.choices))
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: {words}, or whole numbers") from None


def _value(option: Option, given: Any) -> Any:
    """A list as it was typed; a single word that stands for a whole list as itself."""
    alone = option.many and isinstance(given, list) and len(given) == 1
    return given[0] if alone and given[0] in option.choices else given
