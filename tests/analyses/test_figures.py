from __future__ import annotations

import dataclasses

import numpy as np
import plotly.io as pio
import pytest

from analyses import figures
from mechproc.errors import ConfigError
from mechproc.result import Result
from mechproc.statistics.paired import interval

SEEDS = list(range(8))
ARMS = ["random", "attention"]
SCORES = np.array([[0.1, 0.12, 0.11, 0.13, 0.1, 0.09, 0.14, 0.11], [0.9, 0.2, 0.95, 0.8, 0.85, 0.15, 0.9, 0.7]])


def result(values, unit="fraction", **axes) -> Result:
    return Result(
        "accuracy", np.asarray(values), tuple(axes), axes, unit, "higher is better", "whether more steps would help.",
    )  # fmt: skip


def scores(n: int = 8) -> Result:
    return result(SCORES[:, :n], arm=ARMS, seed=SEEDS[:n])


def caption(figure) -> str:
    return figure.layout.meta["caption"]


def diamonds(figure) -> list:
    return [trace for trace in figure.data if trace.marker and trace.marker.symbol == "diamond"]


class TestArms:
    def test_every_seed_is_a_dot_and_every_arm_has_its_mean_and_interval(self):
        figure = figures.arms(scores())
        dots = [trace for trace in figure.data if trace not in diamonds(figure)]
        np.testing.assert_array_equal([trace.x for trace in dots], SCORES)
        for values, mean in zip(SCORES, diamonds(figure), strict=True):
            found = interval(values)
            assert mean.x[0] == pytest.approx(values.mean())
            assert mean.x[0] + mean.error_x.array[0] == pytest.approx(found.high)
            assert mean.x[0] - mean.error_x.arrayminus[0] == pytest.approx(found.low)
        assert list(figure.layout.yaxis.ticktext) == ARMS

    def test_the_order_of_the_axes_does_not_matter(self):
        turned = result(SCORES.T, seed=SEEDS, arm=ARMS)
        assert figures.arms(turned).to_json() == figures.arms(scores()).to_json()

    def test_caption(self):
        text = caption(figures.arms(scores()))
        assert text.startswith("8 seeds.")
        assert "95 % interval (inverted sign-flip test)" in text
        assert text.endswith("Higher is better. Does not show: whether more steps would help.")
        assert "90 % interval (t)" in caption(figures.arms(scores(), level=0.9, method="t"))

    def test_lines_at_ceiling_and_baselines(self):
        figure = figures.arms(scores(), {"best attainable": 1.0, "a value <of> the context": 0.14})
        assert [shape.x0 for shape in figure.layout.shapes] == [0.14, 1.0]
        low, high = figure.layout.annotations
        assert low.text == "a value &lt;of&gt; the context"
        assert (low.xanchor, high.xanchor) == ("left", "right")  # towards the middle, so that neither is cut off
        assert high.yshift > low.yshift

    def test_too_few_seeds_for_an_interval(self):
        figure = figures.arms(scores(3))
        assert all(mean.error_x.array is None for mean in diamonds(figure))
        assert "there is no interval, 3 seeds are too few for one" in caption(figure)

    def test_a_missing_seed_leaves_no_mean(self):
        values = SCORES.copy()
        values[0, 2] = np.nan
        figure = figures.arms(result(values, arm=ARMS, seed=SEEDS))
        assert [mean.x[0] for mean in diamonds(figure)] == [pytest.approx(SCORES[1].mean())]
        assert "Where a seed is missing there is neither mean nor interval" in caption(figure)

    def test_other_axes_are_refused(self):
        with pytest.raises(ConfigError, match="select or average first"):
            figures.arms(result(SCORES, part=ARMS, seed=SEEDS))


class TestCurves:
    STEPS = (0, 100, 1000)
    CURVE = SCORES[:, :, None] * np.array([0.1, 0.5, 1.0])

    def test_thin_seeds_thick_mean_and_a_band(self):
        figure = figures.curves(result(self.CURVE, arm=ARMS, seed=SEEDS, step=self.STEPS))
        thin = [trace for trace in figure.data if trace.line.width == 1]
        thick = [trace for trace in figure.data if trace.line.width == 3]
        bands = [trace for trace in figure.data if trace.fill == "toself"]
        np.testing.assert_array_equal([trace.y for trace in thin], self.CURVE.reshape(16, 3))
        np.testing.assert_allclose([trace.y for trace in thick], self.CURVE.mean(axis=1))
        assert [trace.name for trace in thick if trace.showlegend is None] == ARMS
        ends = [interval(self.CURVE[1, :, step]) for step in range(3)]
        np.testing.assert_allclose(bands[1].y, [e.low for e in ends] + [e.high for e in reversed(ends)])
        assert list(bands[1].x) == [0, 100, 1000, 1000, 100, 0]
        assert "the band its 95 % interval" in caption(figure)

    def test_a_mean_needs_every_seed(self):
        values = self.CURVE.copy()
        values[1, 3, 2] = np.nan  # this seed stopped early
        figure = figures.curves(result(values, arm=ARMS, seed=SEEDS, step=self.STEPS))
        mean = next(t for t in figure.data if t.name == "attention").y
        assert np.isnan(mean[2]) and mean[1] == pytest.approx(self.CURVE[1, :, 1].mean())


class TestAblationMap:
    PARTS = ("embed", "L0.H0", "L0.H1", "L0.mlp", "L1.H0", "L1.H1")
    VALUES = np.array([[0.5, 0.5], [0.0, 0.4], [0.3, -0.1], [0.05, 0.0], [0.2, 0.1], [0.6, 0.0]])

    def map(self, **kwargs):
        return figures.ablation_map(result(self.VALUES, part=self.PARTS, seed=[0, 1]), **kwargs)

    def test_heads_are_sorted_within_layer_and_seed(self):
        heat = self.map().data[0]
        assert np.array(heat.z).tolist() == [[0.5, 0.5], [0.3, 0.4], [0.0, -0.1], [0.05, 0.0], [0.6, 0.1], [0.2, 0.0]]
        assert list(heat.text[1]) == ["L0.H1, seed 0", "L0.H0, seed 1"]
        assert list(heat.text[2]) == ["L0.H0, seed 0", "L0.H1, seed 1"]
        assert list(heat.text[4]) == ["L1.H1, seed 0", "L1.H0, seed 1"]
        labels = list(self.map().layout.yaxis.ticktext)
        assert labels == ["embed", "L0 head, rank 1", "L0 head, rank 2", "L0.mlp", "L1 head, rank 1", "L1 head, rank 2"]
        assert "a row is a rank in its layer" in caption(self.map())

    def test_parts_of_heads_are_sorted_among_themselves(self):
        parts = ("L0.H0", "L0.H0.QK", "L0.H0.OV", "L0.H1", "L0.H1.QK", "L0.H1.OV")
        values = np.array([[1.0], [2.0], [3.0], [4.0], [5.0], [0.0]])
        figure = figures.ablation_map(result(values, part=parts, seed=[0]))
        assert np.array(figure.data[0].z).ravel().tolist() == [4.0, 5.0, 3.0, 1.0, 2.0, 0.0]
        assert figure.layout.yaxis.ticktext[1] == "L0 head QK, rank 1"

    def test_or_left_as_they_are(self):
        figure = self.map(sort_heads=False)
        np.testing.assert_array_equal(figure.data[0].z, self.VALUES)
        assert list(figure.layout.yaxis.ticktext) == list(self.PARTS)
        assert "rank" not in caption(figure)

    def test_colours_are_centred_at_zero(self):
        heat = self.map().data[0]
        assert (heat.zmin, heat.zmax) == (-0.6, 0.6)

    def test_undefined_cells_are_hatched_and_labelled(self):
        values = self.VALUES.copy()
        values[3] = np.nan
        effects = result(values, part=self.PARTS, seed=[0, 1])
        undefined = dataclasses.replace(effects, undefined=[({"part": "L0.mlp"}, "no reason at all")])
        for each, word in ((undefined, "undefined"), (effects, "missing")):
            figure = figures.ablation_map(each)
            (hatched,) = [trace for trace in figure.data if trace.type == "scatter" and trace.fill == "toself"]
            assert hatched.fillpattern.shape == "/"
            assert {y for y in hatched.y if y is not None} == {2.55, 3.45}
            assert [(a.text, a.y) for a in figure.layout.annotations] == [(word, 3)]


class TestPattern:
    LOOK = np.array([[1.0, 0.0, 0.0], [0.3, 0.7, 0.0], [0.2, 0.2, 0.6]])

    def test_the_future_is_blank(self):
        figure = figures.pattern(result(self.LOOK, query=[0, 1, 2], key=[0, 1, 2]), ["k1", "<b>", "q1"], "L1.H0")
        heat = figure.data[0]
        assert np.isnan(heat.z[0][1]) and heat.z[2].tolist() == [0.2, 0.2, 0.6]
        assert heat.text[2][1] == "query 2 q1, key 1 &lt;b&gt;"
        assert list(figure.layout.xaxis.ticktext) == ["k1", "&lt;b&gt;", "q1"]
        assert "without an interval" in caption(figure)

    def test_too_few_tokens(self):
        with pytest.raises(ConfigError, match="number of tokens = 1"):
            figures.pattern(result(self.LOOK, query=[0, 1, 2], key=[0, 1, 2]), ["k1"])


class TestBeforeAfter:
    VALUES = np.array([[[[0.3, 0.2], [0.1, 0.1]], [[0.9, 0.8], [0.2, 0.0]]]])
    """mask, when, rank, seed."""

    def test_dots_lines_and_names(self):
        axes = {"mask": ["answer"], "when": ["before", "after"], "rank": [1, 2], "seed": [4, 5]}
        heads = {"answer": {"4": ["L1.H0", "L0.H1"], "5": ["L0.H0", "L1.H1"]}}
        effects = dataclasses.replace(
            result(self.VALUES, **axes), metadata={"heads": heads, "uniform": {"answer": 0.15}}
        )
        figure = figures.before_after(effects, "answer")
        lines = [trace for trace in figure.data if trace.mode == "lines"]
        assert [list(line.y) for line in lines] == [[0.3, 0.9, None, 0.2, 0.8, None], [0.1, 0.2, None, 0.1, 0.0, None]]
        dots = {(t.name, tuple(t.y)): list(t.text) for t in figure.data if t.name in ("before", "after")}
        assert dots["after", (0.9, 0.8)] == ["L1.H0, seed 4, after", "L0.H0, seed 5, after"]
        assert [t.name for t in figure.data if t.name and t.showlegend] == ["before", "after"]
        assert figure.layout.shapes[0].y0 == 0.15
        means = [float(mean.y[0]) for mean in diamonds(figure)]
        assert means == pytest.approx([0.25, 0.1, 0.85, 0.1])


def test_no_global_template_changes():
    before = pio.templates.default
    for figure in (figures.arms(scores()), TestAblationMap().map()):
        assert figure.layout.template.layout.font.size == 12.5
    assert pio.templates.default == before == "plotly"
