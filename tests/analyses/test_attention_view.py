"""Attention patterns to look through, without a network."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from analyses import attention, figures
from analyses.figures.attention_view import MAX_ITEMS, WINDOW
from mechproc.errors import ConfigError, StoreError
from mechproc.result import Result

from .conftest import alternating, planted

ITEMS = alternating((0, 1, 6), (2, 3, 4))
NAMES = [" ", "\n", "<b>", "a token that is very long", "e"]


def data(view: figures.AttentionView) -> list[dict]:
    return [json.loads(text) for text in re.findall(r'type="application/json"[^>]*>(.*?)</script>', view.html())]


def long_patterns(n: int, n_items: int = 1, n_heads: int = 1) -> Result:
    values = np.tril(np.ones((1, n_heads, n_items, n, n)))
    values = values * np.arange(1, n + 1) / (values * np.arange(1, n + 1)).sum(-1, keepdims=True)
    sizes = {"layer": 1, "head": n_heads, "item": n_items, "query": n, "key": n}
    return Result(
        "attention", values, tuple(sizes), {axis: range(k) for axis, k in sizes.items()}, "fraction", "higher: more",
        "that it is used", metadata={"tokens": [list(range(n))] * n_items},
    )  # fmt: skip


def test_of_a_model():
    view = figures.attention_view(planted(), ITEMS, NAMES)
    first, second = data(view)
    assert first["attentionHeadNames"] == ["L0.H0", "L0.H1"]
    assert first["tokens"] == ["'␣'", r"'\n'"] * 3 and second["tokens"] == ["<b>", "a token that …y long"] * 2
    exact = attention.patterns(planted(), ITEMS)
    np.testing.assert_allclose(first["attention"], exact.select(layer=0, item=0).values, atol=1e-3)
    np.testing.assert_allclose(second["attention"], exact.select(layer=0, item=1).values[:, :4, :4], atol=1e-3)
    assert "Attention of 2 heads on 2 items" in view.caption and "no evidence" in view.caption


def test_of_patterns_it_is_the_same():
    of_model = figures.attention_view(planted(), ITEMS)
    assert figures.attention_view(attention.patterns(planted(), ITEMS)).html() == of_model.html()
    assert data(of_model)[0]["tokens"] == ["0", "1"] * 3


def test_the_page_needs_no_network(tmp_path: Path):
    path = tmp_path / "view.html"
    figures.attention_view(planted(), ITEMS, NAMES).save(path)
    page = path.read_text(encoding="utf-8")
    assert 'id="library-circuitsvis"' in page and 'id="library-plotly"' not in page
    assert "default-src 'none'" in page and not re.search(r"(src|href)=", page.split("<script type=")[0])
    assert len(page) < 700_000 and list(tmp_path.iterdir()) == [path]
    with pytest.raises(StoreError, match="cannot be written"):
        figures.attention_view(planted(), ITEMS).save(tmp_path / "nowhere" / "view.html")


def test_a_notebook_shows_the_same_page():
    view = figures.attention_view(planted(), ITEMS, NAMES)
    (inside,) = re.findall(r'srcdoc="([^"]*)"', view._repr_html_())
    assert html.unescape(inside) == view.html()


def test_a_long_item_is_drawn_in_a_window():
    patterns = long_patterns(100)
    assert data(figures.attention_view(patterns))[0]["tokens"] == [str(i) for i in range(WINDOW)]
    view = figures.attention_view(patterns, start=-30, window=20)
    (drawn,) = data(view)
    assert drawn["tokens"] == [f"{i}: {i}" for i in range(70, 90)]
    exact = patterns.select(layer=0, item=0, query=list(range(70, 90)), key=list(range(70, 90))).values
    np.testing.assert_allclose(drawn["attention"], exact, atol=1e-3)
    assert "positions 70 to 89 of 100 are drawn" in view.caption
    assert len(data(figures.attention_view(patterns, start=-200))[0]["tokens"]) == WINDOW


def test_patterns_of_a_window_keep_their_positions():
    items = alternating((0, 1, 6), (2, 3, 5))
    windowed = attention.patterns(planted(), items, window=(3, None))
    whole = figures.attention_view(planted(), items, start=3)
    assert data(figures.attention_view(windowed)) == data(whole)
    assert data(whole)[1]["tokens"] == ["3: 3", "4: 2"]
    assert [one["tokens"] for one in data(figures.attention_view(windowed, start=-1))] == [["5: 1"], ["4: 2"]]
    with pytest.raises(ConfigError, match="keys"):
        figures.attention_view(windowed.select(key=[3]))


def test_what_is_left_out_is_named():
    view = figures.attention_view(long_patterns(3, n_items=MAX_ITEMS + 2, n_heads=20))
    assert len(view.items) == MAX_ITEMS
    assert "The first 8 of 10 items" in view.caption and "The first 16 of 20 heads" in view.caption
    chosen = figures.attention_view(long_patterns(3, n_heads=20), heads=["L0.H19", "L0.H3"])
    assert data(chosen)[0]["attentionHeadNames"] == ["L0.H19", "L0.H3"] and "The first" not in chosen.caption
    many = alternating(*[(0, 1, 4)] * 70)
    assert "The first 8 of 70 items" in figures.attention_view(planted(), many).caption


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"start": 6}, "start"),
        ({"window": 0}, "window"),
        ({"heads": ["L0.H9"]}, "L0.H9"),
        ({"token_names": ["a"]}, "token_names"),
    ],
)
def test_what_cannot_be_drawn(arguments, field):
    with pytest.raises(ConfigError, match=field):
        figures.attention_view(planted(), ITEMS, **arguments)


def test_a_model_needs_items():
    with pytest.raises(ConfigError, match="items"):
        figures.attention_view(planted())
    with pytest.raises(ConfigError, match="axes"):
        figures.attention_view(long_patterns(3).select(item=0))
