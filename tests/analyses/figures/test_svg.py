"""Figures as SVG: what is drawn where, what is escaped, and what leads to evidence."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import plotly.graph_objects as go
import pytest

from analyses import figures
from analyses.figures.style import escaped
from analyses.figures.svg import svg
from analyses.figures.svg.elements import path, plain_text
from analyses.figures.svg.numbers import filled, formatted, log_ticks, ticks
from mechproc.errors import ConfigError
from mechproc.result import Result

HOSTILE = ["</script>", "<b>", "\"'", "\N{SMILING FACE WITH OPEN MOUTH}", "x\u2028y", "a\x00b", "&lt;"]


def result(values, undefined=(), **axes) -> Result:
    return Result(
        "lost", np.asarray(values), tuple(axes), axes, "nats", "positive: it hurts", "why", undefined=undefined
    )


def drawn(figure: go.Figure, **options) -> ET.Element:
    """Parsed as XML, so that whatever is not escaped is an error."""
    return ET.fromstring(svg(figure, "f", **options))


def texts(root: ET.Element, tag: str = "text") -> list[str]:
    return ["".join(each.itertext()) for each in root.iter(tag)]


class TestWhere:
    def test_dots_lie_at_their_values(self):
        figure = go.Figure(layout={"width": 300, "height": 200, "margin": {"l": 50, "r": 50, "t": 50, "b": 50},
                                   "xaxis": {"range": [0, 10]}, "yaxis": {"range": [0, 1]}})  # fmt: skip
        figure.add_scatter(x=[0, 5, 10, 5], y=[0, 0.5, 1, None], mode="markers")
        circles = drawn(figure).iter("circle")
        assert [(c.get("cx"), c.get("cy")) for c in circles] == [("50", "150"), ("150", "100"), ("250", "50")]

    def test_a_line_is_broken_where_a_value_is_missing(self):
        assert path([0, 1, float("nan"), 3, 4], [0, 1, 2, 3, 4]) == "M0 0L1 1M3 3L4 4"
        assert path([0, 1, 1], [0, 0, 1], closed=True) == "M0 0L1 0L1 1Z"

    def test_an_interval_reaches_from_low_to_high(self):
        scores = result([[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]], arm=["a"], seed=range(6))
        figure = figures.arms(scores)
        (mean,) = [t for t in figure.data if t.marker.symbol == "diamond"]
        (bar,) = [p.get("d") for p in drawn(figure).iter("path") if p.get("stroke-width") == "2"]
        (diamond,) = drawn(figure).iter("polygon")
        left, *_, right = [float(x) for x in re.findall(r"[ML](\S+) ", bar)]
        middle = float(diamond.get("points").split(",")[0])
        assert left < middle < right
        share = (middle - left) / (right - left)
        low, high = mean.error_x.arrayminus[0], mean.error_x.array[0]
        assert share == pytest.approx(low / (low + high), abs=0.02)

    def test_a_logarithmic_axis(self):
        figure = go.Figure(layout={"width": 200, "height": 100, "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
                                   "xaxis": {"type": "log", "range": [0, 2]}})  # fmt: skip
        figure.add_scatter(x=[1, 10, 100, 0], y=[0, 0, 0, 0], mode="markers")
        assert [c.get("cx") for c in drawn(figure).iter("circle")] == ["0", "100", "200"]  # 0 has no place


class TestMaps:
    VALUES = ((0.5, -0.5), (0.25, np.nan), (np.nan, np.nan))
    PARTS = ("L0.H0", "L0.H1", "pos")

    def map(self):
        undefined = [({"part": "pos"}, "the same in every item")]
        return figures.ablation_map(result(self.VALUES, undefined, part=self.PARTS, seed=[0, 1]))

    def test_cells_without_a_value_are_shown_as_such(self):
        root = drawn(self.map())
        titles = texts(root, "title")
        assert "L0.H0, seed 1: \N{MINUS SIGN}0.5000" in titles
        assert "L0.H1, seed 1: no value" in titles and "pos, seed 0: no value" in titles
        assert sum(rect.get("class") == "none" for rect in root.iter("rect")) == 3
        assert texts(root).count("no value") == 2  # a row each, over the hatching
        assert any((p.get("fill") or "").startswith("url(#f-hatch)") for p in root.iter("path"))

    def test_colours_are_those_of_the_scale(self):
        root = drawn(self.map())
        cells = [r.get("fill") for g in root.iter("g") if g.get("class") == "cells" for r in g.iter("rect")]
        assert cells[:3] == ["#1f5388", "#a5522a", "#86acd0"]  # the largest, the smallest, half of the largest

    def test_cells_and_labels_lead_to_the_evidence_on_their_part(self):
        root = drawn(self.map(), links={"L0.H1": "evidence-2"})
        links = [a for a in root.iter("a") if a.get("href") == "#evidence-2"]
        assert [a.get("data-row") for a in links if a.get("data-row")] == ["1", "1"]
        assert ["".join(a.itertext()) for a in links if not a.get("data-row")] == ["L0.H1"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_show_as_themselves(name):
    figure = figures.arms(result([[0.1, 0.2], [0.3, 0.4]], arm=[name, "other"], seed=[0, 1]))
    root = drawn(figure)
    shown = figures.style.visible(name)
    assert shown in texts(root)
    seen = name.replace("\x00", "\ufffd")
    assert f"{seen}, seed 0: 0.1000" in texts(root, "title")
    assert {child.tag for child in root.iter()} <= {
        "svg", "defs", "pattern", "path", "line", "g", "circle", "polygon", "title", "text", "tspan", "rect",
    }  # fmt: skip


def test_another_kind_of_trace_is_refused():
    with pytest.raises(ConfigError, match="type of trace = 'bar'"):
        svg(go.Figure(go.Bar(x=[1], y=[2])), "f")


def test_numbers_and_templates():
    assert (
        formatted(0.5, ".0%") == "50%"
        and formatted(12000, ",d") == "12,000"
        and formatted(-2, None) == "\N{MINUS SIGN}2"
    )
    assert filled("%{text}: %{z:.2f}<extra></extra>", {"text": "a", "z": 0.126}) == "a: 0.13"
    assert filled("%{text}: %{z:.2f}", {"text": "a", "z": None}) == "a: no value"
    assert ticks(0, 1, 4) == [0, 0.5, 1] and ticks(-0.03, 0.11, 6) == [0, 0.05, 0.1]
    assert log_ticks(0, 2) == [1, 10, 100] and log_ticks(0.1, 0.5) == [2]
    assert plain_text("<b>a</b> &lt;b&gt;<br>c") == "a <b> c"


@pytest.mark.parametrize("width", [300, 760])
def test_a_long_title_is_broken_and_keeps_its_characters(width):
    title = "accuracy of <b> & Co., against the random start of the seed"
    figure = go.Figure(go.Scatter(x=[0, 1], y=[0, 1]))
    figure.update_layout(title={"text": f"<b>{escaped(title)}</b>"}, width=width)
    root = drawn(figure)
    lines = list(dict.fromkeys(text for kind in ("tspan", "text") for text in texts(root, kind)))
    heading = [line for line in lines if line in title and len(line) > 3]
    assert " ".join(heading) == title
    assert all(len(line) * 7.8 <= width for line in heading) and (len(heading) > 1) == (width == 300)
