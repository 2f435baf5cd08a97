"""Where one input of any kind is tried, and what it must not do is seen."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from small_study import planned, store_of

from mechproc import cli
from mechproc.config import canonical_json, digest
from mechproc.errors import MechprocError
from mechproc.files import read_json
from mechproc.model.config import ModelConfig
from mechproc.model.convert.folder import read_content
from mechproc.model.convert.gpt2 import load_gpt2
from mechproc.model.convert.hooked_transformer import load_hooked_transformer
from mechproc.model.io import load_model
from mechproc.model.parts import check_expression, select, sites
from mechproc.procedures import Procedure, procedures
from mechproc.result import Result
from mechproc.runs.config import RunConfig
from mechproc.runs.executors import run_all
from mechproc.runs.folder import RunFolder
from mechproc.runs.records import Records, line_of
from mechproc.runs.store import Store
from mechproc.training.sinks import FolderSink

SECONDS = 20.0
"""The most that one input may take."""
STRANGERS: list[str] = []
"""Files outside the store that were opened to be written, as far as somebody watches."""
PARSER = functools.cache(cli.parser)
"""Building it takes longer than most commands."""
EVIL = "from pathlib import Path\nPath('executed').touch()\n"


class FaultError(Exception):
    """An input that ended otherwise than it may."""


class Hang(BaseException):
    """An input that takes too long; no ``except Exception`` stops it."""


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Raise ``Hang`` when the block takes longer than ``SECONDS``."""

    def ring(*_: object) -> None:
        raise Hang(f"an input took more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Bench:
    """A place with a finished study, a model of each format and a file that must stay; and the inputs that are tried.

    Each method that tries one input returns nothing, or raises what the input must not cause.
    """

    def __init__(self, place: Path) -> None:
        self.place, self.work = place, place / "work"
        self.work.mkdir(parents=True)
        (place / "precious").write_text("precious")
        (self.work / "broken.json").write_text("{")
        (place / "evil.py").write_text(EVIL)
        shutil.copy(place / "evil.py", self.work)
        runs = [_smaller(run) for run in planned(seeds=1, steps=(4, 12))]
        self.store, self.run = store_of(place / "study"), runs[-1]
        run_all(runs, self.store, workers=1)
        self.configs = [run.to_dict() for run in runs]
        ((name, donor),) = self.configs[-1]["donors"].items()
        forms = [
            {"run": donor, "step": 1},
            {"run": donor, "targets": ["previous", "previous"]},
            {"rule": "set", "seed": 0},
        ]
        forms.append({"file": str(self.store.folder(runs[0]).model)})
        wide = self.configs[-1]["model"] | {"n_heads": 4, "d_model": 16, "d_head": 4, "d_mlp": 64}
        models = [self.configs[-1]["model"]] * 2 + [wide, self.configs[-1]["model"]]
        for form, model in zip(forms, models, strict=True):
            self.configs.append(self.configs[-1] | {"donors": {name: form}, "model": model})
        rules: dict[str, dict[str, Any]] = {kind: {"kind": kind} for kind in procedures()}
        rules["shuffled"] |= {"lengths": {"kind": "fixed", "length": 9}, "procedure": {"kind": "set"}}
        rules["curriculum"] = {"kind": "set", "lengths": {"kind": "curriculum", "start": 2, "stop": 6}}
        for rule in rules.values():
            used = Procedure.from_dict(rule)
            model = {"n_ctx": used.n_ctx, "d_vocab": used.n_cells or used.d_vocab}
            if used.n_cells is not None:
                model |= {"input": "vectors", "d_input": used.n_cells, "tied_embeddings": False}
            self.configs.append({key: self.configs[0][key] for key in ("training", "seed")} | {"procedure": rule})
            self.configs[-1]["model"] = self.configs[0]["model"] | model
        self.configs.append(self.configs[0] | {"procedure": {"kind": "evil.py:Evil"}})

    # ---- configs and parts -------------------------------------------------------------------------------------------

    def config(self, plain: Any) -> None:
        """A config that is read, identified, written and read again."""
        file = self.work / "config.json"
        file.write_text(json.dumps(plain))
        run = RunConfig.from_dict(read_json(file), where="config.json")
        again = RunConfig.from_dict(json.loads(canonical_json(run.to_dict())))
        if again.identity != run.identity or again.name != run.name:
            raise FaultError(f"{run.name} is another run when it is read again")

    def config_bytes(self, content: bytes) -> None:
        """A file of a config that is no longer one."""
        (self.work / "config.json").write_bytes(content)
        RunConfig.from_dict(read_json(self.work / "config.json"))

    def part(self, expression: str) -> None:
        """A part expression, with and without a model."""
        check_expression(expression)
        cfg = ModelConfig(2, 4, 16, 10, 12)
        if len(select(expression, cfg).slices) == 0:
            raise FaultError(f"{expression!r} names nothing, without an error")
        sites(expression, cfg)

    # ---- models ------------------------------------------------------------------------------------------------------

    def model(self, content: bytes) -> None:
        """A file of a model with any header."""
        file = self.work / "model.safetensors"
        file.write_bytes(content)
        for read in (load_model, read_content, self._resume):
            with contextlib.suppress(MechprocError), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # weights that are not finite
                read(file)

    def _resume(self, file: Path) -> None:
        folder = RunFolder(self.work / "resumed" / "set-1")
        sink = FolderSink(folder)
        shutil.copy(file, folder.resume)
        sink.check_resume()

    def foreign(self, plain: Any) -> None:
        """Settings of a GPT-2 or a HookedTransformer beside its weights."""
        folder = self.work / "foreign"
        folder.mkdir(exist_ok=True)
        shutil.copy(self.place / "foreign.safetensors", folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(plain))
        for load in (load_gpt2, load_hooked_transformer):
            with contextlib.suppress(MechprocError):
                load(folder)

    def pickled(self, content: bytes) -> None:
        """A pickle, which is read as plain tensors alone."""
        (self.work / "model.pt").write_bytes(content)
        read_content(self.work / "model.pt", allow_pickle=True)

    # ---- records, Results, stores ------------------------------------------------------------------------------------

    def record(self, plain: Any) -> None:
        """A line of the records with the checksum that belongs to it, or none."""
        folder = self.work / "records"
        folder.mkdir(exist_ok=True)
        shard = folder / f"{self.run.procedure.short_name}.jsonl"
        shard.write_bytes(plain if isinstance(plain, bytes) else _line(plain))
        store = Store(self.work / "runs", records=folder)
        records = Records(folder)
        for read in (
            lambda: list(records.all()),
            records.cut_off,
            lambda: store.has_scores(self.run),
            lambda: store.test(self.run),
            lambda: store.metrics(self.run),
            lambda: store.provenance(self.run),
        ):
            with contextlib.suppress(MechprocError):
                read()

    def result(self, plain: Any) -> None:
        """A Result with the checksum that belongs to it."""
        file = self.work / "result.json"
        file.write_bytes(plain if isinstance(plain, bytes) else json.dumps(_checked(plain)).encode())
        result = Result.load(file)
        str(result), repr(result), result.table(), Result.from_json(result.to_json())

    def folder(self, files: tuple[str, Any]) -> None:
        """A file of a run's folder with the checksum that belongs to it, read by every command that lists or mends."""
        name, plain = files
        root = self.work / "runs"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.store.folder(self.run).path, root / self.run.name)
        content = plain if isinstance(plain, bytes) else json.dumps(_checked(plain)).encode()
        (root / self.run.name / name).write_bytes(content)
        for command in (
            ["list"],
            ["show", self.run.name],
            ["verify"],
            ["repair"],
            ["gc"],
            ["rm", "--yes", self.run.name],
        ):
            self.command(["runs", *command, "--store", "runs"])

    # ---- the command line --------------------------------------------------------------------------------------------

    def command(self, argv: list[str]) -> None:
        """A command: its exit code is 0, 1 with an error in one line, or 2 with argparse's help."""
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.object(cli, "parser", PARSER),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            try:
                code = cli.main(argv)
            except SystemExit as stop:
                code = stop.code
        lines = err.getvalue().splitlines()
        if code not in (0, 1, 2) or (code == 1 and not (lines or out.getvalue())):
            raise FaultError(f"{argv} ended with {code!r} and said {lines}")
        if code != 2 and not all(line.startswith("mechproc: ") for line in lines):
            raise FaultError(f"{argv} said {lines}")

    # ---- one input ---------------------------------------------------------------------------------------------------

    def attempt(self, do: Callable[[Any], None], value: Any) -> bool:
        """Try one input, and look around afterwards; whether it was accepted."""
        accepted = True
        with in_time(), contextlib.chdir(self.work):
            try:
                do(value)
            except MechprocError as error:
                accepted = False
                if not str(error):
                    raise FaultError("an error that says nothing") from error
        if (self.work / "executed").exists() or (self.place / "executed").exists():
            raise FaultError("the code of a file was executed")
        if (self.place / "precious").read_text() != "precious":
            raise FaultError("a file outside the store was changed")
        found = {path.name for path in self.place.iterdir()}
        if strangers := STRANGERS + sorted(found - {"work", "precious", "evil.py", "study", "foreign.safetensors"}):
            raise FaultError(f"files outside the store were touched: {strangers}")
        return accepted


def _smaller(run: RunConfig) -> RunConfig:
    donors = {name: _smaller(donor) for name, donor in run.donors.items() if isinstance(donor, RunConfig)}
    return run.replace(training=run.training.replace(n_test=8, n_validation=8), donors=donors)


def _checked(plain: Any) -> Any:
    if not isinstance(plain, dict):
        return plain
    bare = {key: value for key, value in plain.items() if key != "checksum"}
    try:
        return bare | {"checksum": digest(bare)}
    except ValueError:  # NaN has no checksum
        return plain


def _line(plain: Any) -> bytes:
    try:
        return line_of(plain)
    except ValueError:
        return json.dumps(plain).encode() + b"\n"
