"""Help: a screen for each command, and nothing heavier than argparse to print it."""

import argparse
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mechproc.cli import NOUNS, parser

SCREEN = 40
"""Lines of a screen of help, at 100 columns."""


def commands(of: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield of
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from commands(one)


@pytest.mark.parametrize("command", [*commands(parser())], ids=lambda command: command.prog)
def test_help_is_one_screen_and_has_a_text_for_every_argument(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert command.format_help().count("\n") <= SCREEN
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            assert {choice.dest for choice in action._choices_actions} == set(action.choices), "a command without help"
        else:
            assert action.help, f"{command.prog} {action.dest}"


def test_each_noun_has_a_file_of_its_own():
    import mechproc.cli

    for noun in NOUNS:
        assert noun.__name__.startswith("mechproc.cli."), noun
    (top,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert list(top.choices) == [noun.__name__.rsplit(".", 1)[-1] for noun in mechproc.cli.NOUNS]


def test_every_help_is_printed_without_anything_heavy():
    script = (
        "import sys\nfrom mechproc.cli import parser\nimport argparse\n"
        "def each(of):\n"
        "    of.format_help()\n"
        "    for action in of._actions:\n"
        "        for one in getattr(action, 'choices', None) or {}:\n"
        "            if isinstance(action, argparse._SubParsersAction): each(action.choices[one])\n"
        "each(parser())\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1]
    assert loaded == "['__main__', 'analyses', 'mechproc']", loaded
