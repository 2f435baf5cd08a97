from __future__ import annotations

import dataclasses

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
import pytest

from analyses import figures
from analyses.figures.caption import without_caption
from analyses.figures.style import visible
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
    return [trace for trace in figure.data if trace.type == "scatter" and trace.marker.symbol == "diamond"]


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
        low, high, _ = figure.layout.annotations
        assert low.text == "a value &lt;of&gt; the context"
        assert (low.xanchor, high.xanchor) == ("left", "right")  # towards the middle, so that neither is cut off
        assert high.yshift > low.yshift
        assert "best attainable 100.0 %" in caption(figure)

    def test_ceiling_and_best_baseline_of_the_scores_are_drawn(self):
        levels = {"ceiling": 1.0, "baselines": {"a guess": 0.1, "a copy": 0.4}}
        figure = figures.arms(dataclasses.replace(scores(), metadata=levels))
        assert [shape.x0 for shape in figure.layout.shapes] == [0.4, 1.0]
        assert caption(figure).count("est attainable 100.0 %") == 1

    def test_blank_and_long_names_have_labels(self):
        names = [" ", "an arm whose name nobody expected to be so long"]
        figure = figures.arms(result(SCORES, arm=names, seed=SEEDS))
        first, second = figure.layout.yaxis.ticktext
        assert first == "'␣'" and len(second) <= 28 and second.startswith("an arm") and second.endswith("long")
        assert names[1] in figure.data[2].text[0]
        assert figure.layout.margin.l > 28 * 6

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

    def test_an_arm_that_lacks_a_seed_has_the_mean_of_its_own(self):
        values = self.CURVE.copy()
        values[1, 3] = np.nan
        figure = figures.curves(result(values, arm=ARMS, seed=SEEDS, step=self.STEPS))
        mean = next(t for t in figure.data if t.name == "attention").y
        np.testing.assert_allclose(mean, np.delete(self.CURVE[1], 3, axis=0).mean(axis=0))
        assert f"Of some arms fewer are complete: attention {len(SEEDS) - 1}." in caption(figure)

    def test_why_there_is_no_interval(self):
        values = np.full((2, 10, 3), np.nan)
        values[:, :4] = self.CURVE[:, :4]
        seeds = list(range(10))
        assert "at most 4 of the 10 seeds are there" in caption(
            figures.curves(result(values, arm=ARMS, seed=seeds, step=self.STEPS))
        )
        few = figures.curves(result(self.CURVE[:, :4], arm=ARMS, seed=SEEDS[:4], step=self.STEPS))
        assert "4 seeds are too few for one" in caption(few)


class TestAblationMap:
    PARTS = ("embed", "L0.H0", "L0.H1", "L0.mlp", "L1.H0", "L1.H1")
    VALUES = np.array([[0.5, 0.5], [0.0, 0.4], [0.3, -0.1], [0.05, 0.0], [0.2, 0.1], [0.6, 0.0]])
    HEADS = ("L0.H0", "L0.H1", "L1.H0", "L1.H1")

    def map(self, *args, **kwargs):
        return figures.ablation_map(result(self.VALUES, part=self.PARTS, seed=[0, 1]), *args, **kwargs)

    def test_only_parts_that_are_the_same_in_every_seed_have_a_mean(self):
        figure = self.map()
        np.testing.assert_array_equal(figure.data[0].z, self.VALUES)
        assert list(figure.layout.yaxis.ticktext) == list(self.PARTS)
        assert [mean.x[0] for mean in diamonds(figure)] == [0.5, 0.025]  # embed, L0.mlp
        assert "their rows have no mean" in caption(figure)

    def test_models_that_differ_in_the_order_of_their_neurons_are_not_averaged(self):
        """By index, the mean of the best neuron would be half of what it costs in every model."""
        values = np.array([[0.0386, 0.0], [0.0, 0.0386]])
        effects = result(values, part=("L0.mlp.N0", "L0.mlp.N1"), seed=[0, 1])
        assert diamonds(figures.ablation_map(effects)) == []
        matched = {0: ["L0.mlp.N0", "L0.mlp.N1"], 1: ["L0.mlp.N1", "L0.mlp.N0"]}
        figure = figures.ablation_map(effects, matched, "their weights")
        assert [mean.x[0] for mean in diamonds(figure)] == [pytest.approx(0.0386), 0.0]

    def test_heads_matched_by_their_function(self):
        ranked = {0: ["L1.H1", "L0.H0", "L0.H1", "L1.H0"], "1": ["L0.H0", "L1.H1", "L1.H0", "L0.H1"]}
        figure = self.map(ranked, "their attention on the key")
        heat = figure.data[0]
        assert list(figure.layout.yaxis.ticktext) == ["embed", "rank 1", "rank 2", "rank 3", "rank 4", "L0.mlp"]
        np.testing.assert_array_equal(
            heat.z, [[0.5, 0.5], [0.6, 0.4], [0.0, 0.0], [0.3, 0.1], [0.2, -0.1], [0.05, 0.0]]
        )
        assert list(heat.text[1]) == ["L1.H1, seed 0", "L0.H0, seed 1"]
        assert [mean.x[0] for mean in diamonds(figure)][1] == pytest.approx(0.5)
        assert "ranked so by their attention on the key" in caption(figure)
        assert "no mean" not in caption(figure)

    def test_or_by_index_where_runs_share_one_start(self):
        assert len(diamonds(self.map("index"))) == len(self.PARTS)
        assert "taken to be one part in every seed" in caption(self.map("index"))

    @pytest.mark.parametrize(
        ("matched", "by", "field"),
        [
            ({0: HEADS}, "x", "matched"),
            ({0: HEADS, 1: HEADS[:3]}, "x", "matched parts of seed 1"),
            ({0: HEADS, 1: (*HEADS[:3], "L0.H0")}, "x", "matched parts of seed 1"),
            ({0: ["L0.H7"], 1: ["L0.H7"]}, "x", "L0.H7"),
            ({0: HEADS, 1: HEADS}, " ", "matched_by"),
            ("rank", "", "matched"),
        ],
    )
    def test_what_is_no_matching(self, matched, by, field):
        with pytest.raises(ConfigError, match=field):
            self.map(matched, by)

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
            assert [(a.text, a.y) for a in figure.layout.annotations if a.name != "caption"] == [(word, 3)]
        assert "Undefined: no reason at all." in caption(figures.ablation_map(undefined))


class TestPattern:
    LOOK = np.array([[1.0, 0.0, 0.0], [0.3, 0.7, 0.0], [0.2, 0.2, 0.6]])

    def test_the_future_is_blank(self):
        attention = result(self.LOOK, query=[0, 1, 2], key=[0, 1, 2])
        figure = figures.attention_pattern(attention, ["k1", "<b>", "q1"], "L1.H0")
        heat = figure.data[0]
        assert np.isnan(heat.z[0][1]) and heat.z[2].tolist() == [0.2, 0.2, 0.6]
        assert heat.text[2][1] == "query 2 q1, key 1 &lt;b&gt;"
        assert list(figure.layout.xaxis.ticktext) == ["k1", "&lt;b&gt;", "q1"]
        assert "without an interval" in caption(figure)

    def test_blank_and_long_tokens_have_labels(self):
        attention = result(self.LOOK, query=[0, 1, 2], key=[0, 1, 2])
        figure = figures.attention_pattern(attention, ["\n", "", "a token that is very long"])
        for axis in (figure.layout.xaxis, figure.layout.yaxis):
            assert all(label.strip() for label in axis.ticktext)
            assert axis.ticktext[0] == r"'\n'"
            assert len(axis.ticktext[2]) <= 12 and axis.ticktext[2][0] == "a"
        assert "a token that is very long" in figure.data[0].text[2][2]
        assert figure.layout.margin.l > 12 * 6 and not figure.layout.margin.autoexpand

    def test_part_of_a_long_item(self):
        n = 100
        attention = result(np.tril(np.full((n, n), 0.01)), query=list(range(n)), key=list(range(n)))
        part = attention.select(query=[98, 99], key=[3, 50, 98, 99])
        figure = figures.attention_pattern(part, [f"t{i}" for i in range(n)])
        assert list(figure.layout.yaxis.ticktext) == ["t98", "t99"]
        assert list(figure.layout.xaxis.ticktext) == ["t3", "t50", "t98", "t99"]
        assert np.isnan(figure.data[0].z[0]).tolist() == [False, False, False, True]

    def test_too_few_tokens(self):
        with pytest.raises(ConfigError, match="number of tokens = 1"):
            figures.attention_pattern(result(self.LOOK, query=[0, 1, 2], key=[0, 1, 2]), ["k1"])


class TestBeforeAfter:
    VALUES = np.array([[[[0.3, 0.2], [0.1, 0.1]], [[0.9, 0.8], [0.2, 0.0]]]])
    """mask, when, rank, seed."""

    def test_dots_lines_and_names(self):
        axes = {"mask": ["answer"], "when": ["before", "after"], "rank": [1, 2], "seed": [4, 5]}
        heads = {4: ["L1.H0", "L0.H1"], 5: ["L0.H0", "L1.H1"]}
        effects = dataclasses.replace(result(self.VALUES, **axes), metadata={"uniform": {"answer": 0.15}})
        figure = figures.before_after(effects, "answer", heads)
        lines = [trace for trace in figure.data if trace.mode == "lines"]
        assert [list(line.y) for line in lines] == [[0.3, 0.9, None, 0.2, 0.8, None], [0.1, 0.2, None, 0.1, 0.0, None]]
        dots = {(t.name, tuple(t.y)): list(t.text) for t in figure.data if t.name in ("before", "after")}
        assert dots["after", (0.9, 0.8)] == ["L1.H0, seed 4, after", "L0.H0, seed 5, after"]
        assert [t.name for t in figure.data if t.name and t.showlegend] == ["before", "after"]
        assert figure.layout.shapes[0].y0 == 0.15
        means = [float(mean.y[0]) for mean in diamonds(figure)]
        assert means == pytest.approx([0.25, 0.1, 0.85, 0.1])


class TestCaption:
    def warned(self) -> Result:
        metadata = {
            "warnings": ["no donor beats its baseline"],
            "intact": {"0": 0.5, "1": 0.75},
            "ceiling": 1.0,
            "baselines": {"a guess": 0.25, "the last token": 0.48},
        }
        effects = result(TestAblationMap.VALUES, part=TestAblationMap.PARTS, seed=[0, 1])
        return dataclasses.replace(effects, metadata=metadata)

    def test_a_saved_figure_has_title_warnings_and_caption(self):
        figure = figures.ablation_map(self.warned())
        drawn = [a for a in figure.layout.annotations if a.name == "caption"]
        assert len(drawn) == 1 and "Does not show" in drawn[0].text.replace("<br>", " ")
        title = figure.layout.title.text
        assert title.startswith("<b>accuracy</b>") and "Warning: no donor beats its baseline." in title
        references = "Intact accuracy 50.0 % to 75.0 %; best attainable 100.0 %; best baseline 48.0 % (the last token)."
        assert references in title and references in caption(figure)
        assert caption(figure).startswith("Warning: no donor beats its baseline. Intact")

    def test_losses_have_a_lowest_baseline(self):
        metadata = {"metric": "loss", "baselines": {"a guess": 3.0, "the last token": 1.5}}
        effects = dataclasses.replace(self.warned(), metadata=metadata, unit="nats")
        assert "Best baseline 1.5 nats (the last token)." in caption(figures.ablation_map(effects))

    def test_the_title_names_the_kind_of_ablation(self):
        effects = result(np.zeros((2, 2, 2)), ablation=["zero", "mean"], part=["embed", "pos"], seed=[0, 1])
        titles = [
            figures.ablation_map(effects.select(ablation=kind)).layout.title.text.partition("</b>")[0]
            for kind in ("zero", "mean")
        ]
        assert titles == ["<b>accuracy (ablation zero)", "<b>accuracy (ablation mean)"]

    def test_a_page_can_leave_the_drawn_caption_out(self):
        figure = figures.ablation_map(self.warned())
        bare = without_caption(figure)["layout"]
        assert [a for a in bare["annotations"] if a.get("name") == "caption"] == []
        assert bare["height"] < figure.layout.height and bare["margin"]["t"] == figure.layout.margin.t
        plot = [f["height"] - f["margin"]["t"] - f["margin"]["b"] for f in (bare, figure.to_dict()["layout"])]
        assert plot[0] == plot[1]
        other = go.Figure(go.Scatter(y=[1]))
        assert without_caption(other)["data"] == other.to_dict()["data"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("the", "the"), (" the", "'␣the'"), ("", "''"), ("\t", r"'\t'"), ("a b", "a b"), ("\u200b", r"'\u200b'")],
)
def test_every_token_can_be_seen(text, shown):
    assert visible(text) == shown


def test_no_global_template_changes():
    before = pio.templates.default
    for figure in (figures.arms(scores()), TestAblationMap().map()):
        assert figure.layout.template.layout.font.size == 12.5
    assert pio.templates.default == before == "plotly"


class TestPositionMap:
    EFFECTS = result(
        [[0.5, -2.0, np.nan], [0.0, 1.0, 0.25]], unit="logits", part=["L0.H0", "L0.mlp"], position=[0, 1, 4]
    )

    def test_cells_tokens_and_colours_centred_at_zero(self):
        figure = figures.position_map(self.EFFECTS, ["a", " ", "<b>"])
        (cells,) = figure.data
        np.testing.assert_array_equal(cells.z, self.EFFECTS.values)
        assert (cells.zmin, cells.zmax) == (-2.0, 2.0)
        assert list(figure.layout.yaxis.ticktext) == ["L0.H0", "L0.mlp"]
        assert list(figure.layout.xaxis.ticktext) == ["0 a", "1 '␣'", "4 &lt;b&gt;"]
        assert "One model" in caption(figure) and "Does not show" in caption(figure)

    def test_the_order_of_the_axes_does_not_matter(self):
        turned = result(self.EFFECTS.values.T, unit="logits", position=[0, 1, 4], part=["L0.H0", "L0.mlp"])
        assert figures.position_map(turned).to_json() == figures.position_map(self.EFFECTS).to_json()

    def test_refusals(self):
        with pytest.raises(ConfigError, match="select or average first"):
            figures.position_map(scores())
        with pytest.raises(ConfigError, match="number of tokens = 2"):
            figures.position_map(self.EFFECTS, ["a", "b"])
