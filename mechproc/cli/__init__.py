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
from mechproc.cli import analyse, calibrate, demo, doctor, model, parts, pretrained, procedure, report, run, runs, study
from mechproc.errors import MechprocError

NOUNS = (demo, doctor, procedure, model, parts, run, runs, study, analyse, report, calibrate, pretrained)
INTERRUPTED = 130
MOST_SAID = 2_000
"""Characters of an error."""


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
    except MemoryError:
        return _failed("this takes more memory than there is: give smaller sizes")
    except (OverflowError, RecursionError) as error:
        return _failed(f"a number is too large, or a value is nested too deeply, to go on with: {error}")
    except (MechprocError, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:  # the reader has gone: `mechproc parts | head`
            sys.stderr.close()
            return 1
        return _failed(str(error))


def _failed(reason: str) -> int:
    """Say why in one line, whatever characters a name that was read from a file has."""
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in " ".join(reason.split("\n")))
    print(f"mechproc: {line if len(line) <= MOST_SAID else line[:MOST_SAID] + '...'}", file=sys.stderr)
    return 1
