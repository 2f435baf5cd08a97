"""Which figure a Result gets, the maps beside each other, and what stands in the evidence on a part."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from analyses.report import Report
from analyses.report.collect import find, report
from analyses.report.document import MAX_ROWS
from analyses.report.evidence import heads_as_parts
from analyses.report.sections import results
from mechproc.cli import main
from mechproc.errors import ConfigError
from mechproc.result import Result
from mechproc.runs.store import Store

KEPT = Path(__file__).parents[3] / "results" / "analyses"
PARTS, SEEDS = ("L0.H0", "L0.H1", "L0.mlp"), (0, 1)
SIZES = {
    "part": PARTS, "other": PARTS, "seed": SEEDS, "position": (0, 1, 2), "layer": (0,), "head": (0, 1),
    "mask": ("a", "b"),
    "sender": ("embed", "L0.H0"), "receiver": ("L0.H1.q", "logits"), "query": (0, 1), "key": (0, 1), "arm": ("x", "y"),
    "step": (0, 10), "quantity": ("effect", "recovery"), "writer": PARTS, "reader": PARTS, "ablation": ("zero", "mean"),
}  # fmt: skip


def made(*axes: str, name: str = "lost") -> Result:
    values = np.random.default_rng(0).normal(size=[len(SIZES[axis]) for axis in axes])
    return Result(name, values, axes, {axis: SIZES[axis] for axis in axes}, "nats", "positive: it hurts", "why")


@pytest.mark.parametrize(
    "axes, n_figures",
    [
        (("part", "seed"), 1),
        (("ablation", "part", "seed"), 2),
        (("mask", "layer", "head", "seed"), 2),
        (("layer", "head", "seed"), 1),
        (("sender", "seed"), 1),
        (("quantity", "part", "position", "seed"), 4),
        (("sender", "receiver", "seed"), 2),
        (("part", "other", "seed"), 2),
        (("query", "key"), 1),
        (("arm", "seed"), 1),
        (("arm", "seed", "step"), 1),
        (("writer", "reader", "quantity", "seed"), 0),
        (("query",), 0),
    ],
)
def test_a_result_is_drawn_as_its_axes_ask_for_or_printed(axes, n_figures):
    drawn, n_left_out = results.figures_of(made(*axes))
    assert (len(drawn), n_left_out) == (n_figures, 0)
    page = Report("T")
    results.add(page, [made(*axes)])
    kinds = [block.kind for block in page.blocks if block.kind in ("figure", "table")]
    assert kinds[-1] == ("figure" if n_figures else "table")
    assert "<svg" in page.html() or not n_figures


def test_what_is_said_of_one_picture_stands_below_it():
    circuits = Result.load(KEPT / "circuit" / "set-symbol.json").select(seed=[0, 1])
    page = Report("T").figure(results.figures_of(circuits)[0], "", circuits)
    (block,) = page.blocks
    assert "Widths are effects" in block.caption and "edges of at least" not in block.caption
    assert [text.count("edges of at least") for text in block.below] == [1, 1] and block.below[0] != block.below[1]
    assert all(text in page.html() for text in block.below)


def test_results_of_one_name_are_told_apart_by_their_models_or_files():
    named = dataclasses.replace(made("part", "seed"), metadata={"request": {"models": {"sort": {}}}})
    page = Report("T")
    results.add(page, [named, dataclasses.replace(made("part", "seed"), metadata={"file": "of-set"})])
    headings = [block.text for block in page.blocks if block.kind == "heading"]
    assert headings[1:] == ["Lost: sort", "Lost: of-set"]


def test_kept_results_are_drawn():
    circuits = Result.load(KEPT / "circuit" / "set-symbol.json").select(seed=[0, 1])
    titles = [str(figure.layout.title.text) for figure in results.figures_of(circuits)[0]]
    assert [title.partition("<br>")[0] for title in titles] == [
        "<b>edges of the circuit, seed 0</b>",
        "<b>edges of the circuit, seed 1</b>",
    ]
    assert all("Score of the clean run 8.321 logits to 22.06 logits" in title for title in titles)
    probes = Result.load(KEPT / "probing" / "stack-readable.json").select(latent=["depth"])
    drawn, n_left_out = results.figures_of(probes)
    assert len(drawn) == len(probes.coordinates["quantity"]) and n_left_out == 0


def test_maps_of_several_results_stand_in_the_same_rows():
    page = Report("T")
    patched = made("part", "seed", name="recovery")
    results.add(page, [made("part", "seed"), patched.select(part=["L0.mlp", "L0.H1"])])
    (first, *_) = [block for block in page.blocks if block.kind == "figure"]
    (beside,) = first.figures
    assert list(beside.layout.yaxis.ticktext) == list(PARTS)
    z = np.array(beside.data[0].z, dtype=float)
    assert z.shape == (3, 5) and np.isnan(z[0, 3:]).all()  # two seeds each, a gap between; L0.H0 has no second map
    np.testing.assert_allclose(z[1, 3:], patched.select(part="L0.H1").values / np.abs(patched.values[1:]).max())


class TestEvidence:
    def test_a_part_has_its_rows_of_all_results(self):
        page = Report("T").evidence(made("part", "seed"), made("mask", "layer", "head", "seed", name="attention"))
        page.evidence(
            made("sender", "receiver", "seed", name="edges"), made("part", "position", "seed", name="by place")
        )
        captions = [block.caption for block in page.known.on("L0.H0").blocks]
        assert [caption.split(" (")[0] for caption in captions[:3]] == ["Lost", "Attention", "Edges, as sender"]
        assert captions[3].startswith("By position.")
        reader = [block.caption for block in page.known.on("L0.H1").blocks]
        assert any(caption.startswith("Edges, as receiver") for caption in reader)
        (row,) = page.known.on("L0.H0").blocks[0].table.rows
        assert [cell.text for cell in row[-2:]] == [f"{x:.4g}" for x in made("part", "seed").values[0]]

    def test_a_result_is_taken_once_and_subjects_are_listed_once(self):
        page = Report("T").evidence(made("part", "seed")).evidence(made("part", "seed"))
        assert page.known.subjects() == list(PARTS) and len(page.known.on("L0.H0").blocks) == 1

    def test_heads_become_parts(self):
        scores = made("mask", "layer", "head", "seed")
        parts = heads_as_parts(scores)
        assert tuple(parts.axes) == ("mask", "part", "seed") and parts.coordinates["part"] == ("L0.H0", "L0.H1")
        np.testing.assert_array_equal(parts.select(part="L0.H1").values, scores.select(layer=0, head=1).values)


class TestGiven:
    def test_files_and_folders_of_results(self, tmp_path):
        made("part", "seed").save(tmp_path / "one.json")
        (tmp_path / "other.json").write_text("{}")
        store = Store(tmp_path / "runs")
        assert len(find([str(tmp_path)], store).results) == len(find([str(tmp_path / "one.json")], store).results) == 1
        with pytest.raises(ConfigError, match=r"folder = .* with files of Results"):
            (tmp_path / "empty").mkdir()
            find([str(tmp_path / "empty")], store)

    def test_a_name_that_stands_for_nothing(self, tmp_path):
        with pytest.raises(ConfigError, match=r"'rules-by-tusk' is not allowed.*rules-by-task"):
            find(["rules-by-tusk"], Store(tmp_path))

    def test_the_command_writes_a_page(self, tmp_path, capsys):
        made("part", "seed").save(tmp_path / "one.json")
        out = tmp_path / "page.html"
        assert main(["report", str(tmp_path / "one.json"), "--out", str(out), "--store", str(tmp_path)]) == 0
        assert capsys.readouterr().out.startswith(f"{out}: lost, 0.")
        assert "L0.H1" in out.read_text(encoding="utf-8")

    def test_no_row_is_lost_silently(self):
        many = Result("n", np.arange(100.0), ("item",), {"item": range(100)}, "counts", "higher: more", "why")
        page = Report("T")
        results.add(page, [many])
        (table,) = [block for block in page.blocks if block.kind == "table"]
        assert len(table.table.rows) == MAX_ROWS and table.csv and "of 100 rows" in table.notes[-1]


def test_a_run_has_its_curve_scores_spectra_and_attention(tiny, tmp_path):
    from mechproc.runs.execute import execute
    from mechproc.studies.set_to_haystack import study

    store = Store(tmp_path / "runs")
    planned = study((0,), tiny)
    run = planned.run_of("random", 0)
    execute(run, store)
    page = report([run.name], store, kept=tmp_path)
    headings = [block.text for block in page.blocks if block.kind == "heading"]
    assert headings == [f"Run {run.name}", "What the heads look at", "Methods", "Commands"]
    html = page.html()
    assert "test accuracy" in html and "Minimal pair" in html and 'id="library-circuitsvis"' in html
    attention = page.known.on("L0.H1").blocks
    assert sum(block.kind == "figure" for block in attention) == 2  # the clean and the corrupt item of a pair
    assert any(block.kind == "table" and "Spectrum" in block.caption for block in attention)
