"""The command line: the only place that prints and parses. One file for each noun.

A noun's module has ``add(subparsers)``, which declares its arguments, and ``run(args) -> int``, its exit code. Heavy
imports stand inside ``run``, so that ``--help`` is instant.
"""

from __future__ import annotations

import argparse
import errno
import io
import sys

from mechproc import __version__
from mechproc.cli import analyse, calibrate, demo, doctor, model, parts, pretrained, procedure, run, runs, study
from mechproc.errors import MechprocError

NOUNS = (demo, doctor, procedure, model, parts, run, runs, study, analyse, calibrate, pretrained)
INTERRUPTED = 130


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="mechproc", description="Which part of a model carries what it learned?")
    top.add_argument("--version", action="version", version=f"mechproc {__version__}")
    nouns = top.add_subparsers(dest="noun", metavar="COMMAND", required=True)
    for noun in NOUNS:
        noun.add(nouns)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command. Whatever the user can mend ends in one line on standard error and exit code 1; Ctrl-C in 130."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that a console lacks, such as one of cp1252, is a "?"
            stream.reconfigure(errors="replace")
    args = parser().parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("mechproc: stopped; what was complete is kept, and the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    except MechprocError as error:
        print(f"mechproc: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader of a pipe has gone, as in `mechproc parts | head`
            sys.stderr.close()
            return 1
        print(f"mechproc: {error}", file=sys.stderr)
        return 1
