"""The verb ``parts``."""

from __future__ import annotations

import argparse

import pytest

from mechproc.cli import parts
from mechproc.errors import PartError
from mechproc.model.parts import table_markdown


@pytest.fixture
def mechproc(capsys):
    """Runs the verb alone and gives what it prints."""

    def call(*words: str) -> str:
        parser = argparse.ArgumentParser()
        parts.add(parser.add_subparsers())
        args = parser.parse_args(["parts", *words])
        assert args.run(args) == 0
        return capsys.readouterr().out

    return call


def test_without_arguments_the_table(mechproc):
    assert mechproc().strip() == table_markdown()


def test_with_a_shape_the_parts_of_such_a_model(mechproc):
    out = mechproc("--layers", "1", "--heads", "2", "--mlp", "0", "--no-layernorm", "--tied")
    names = [line.split("`")[1] for line in out.splitlines()[2:]]
    assert names == [
        "all",
        "embed",
        "pos",
        "L0",
        "L0.attn",
        *(f"L0.H{h}{c}" for h in (0, 1) for c in ("", ".QK", ".OV")),
    ]


def test_with_an_expression_its_tensors_and_activations(mechproc):
    out = mechproc("L0.attn - L0.H2")
    assert out.startswith("L0.attn - L0.H2: 820 of ")  # 3 heads of 4 x 16 x 4 + 3 x 4, and the bias of 16
    assert "| `blocks.0.attn.W_Q` | 0-1, 3           | 192 " in out
    assert [line.split("`")[1] for line in out.splitlines() if "hook_z" in line] == ["L0.H0", "L0.H1", "L0.H3"]
    assert "No ablation reaches blocks.0.attn.b_O" in out


def test_undefined_prints_as_such_and_why(mechproc):
    row = next(line for line in mechproc("L1.H0.QK").splitlines() if "hook_pattern" in line)
    assert "| *undefined*: a pattern of zeros is no distribution" in row
    assert "No ablation: 'unembed' has no activation" in mechproc("unembed")


def test_many_neurons_are_counted_not_listed(mechproc):
    out = mechproc("L0.mlp - L0.mlp.N3")
    assert "0-2, 4-63" in out
    assert out.count("hook_post") == parts.MOST_ROWS and f"and {63 - parts.MOST_ROWS} more" in out


def test_errors_are_the_librarys(mechproc):
    with pytest.raises(PartError, match="its layers are L0 to L1"):
        mechproc("L2.attn")
