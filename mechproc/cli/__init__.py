"""The command line: the only place that prints and parses. One file for each verb.

A verb's module has ``add(subparsers)``, which declares its arguments, and ``run(args) -> int``, its exit code. Heavy
imports stand inside ``run``, so that ``--help`` is instant.
"""

from __future__ import annotations

import argparse
import errno
import io
import sys

from mechproc import __version__
from mechproc.cli import demo, doctor, donors, export, parts, run, runs, show, study
from mechproc.cli import import_model as import_
from mechproc.cli import list as list_
from mechproc.errors import MechprocError

VERBS = (demo, doctor, show, list_, parts, run, runs, study, import_, export, donors)
INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run one command. Whatever the user can mend ends in one line on standard error and exit code 1; Ctrl-C in 130."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that a console lacks, such as one of cp1252, is a "?"
            stream.reconfigure(errors="replace")
    parser = argparse.ArgumentParser(prog="mechproc", description="Which part of a model carries what it learned?")
    parser.add_argument("--version", action="version", version=f"mechproc {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS:
        verb.add(verbs)
    args = parser.parse_args(argv)
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
