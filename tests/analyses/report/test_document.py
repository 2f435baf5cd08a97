from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from analyses import figures
from analyses.figures.frame import packed, plain, to_json
from analyses.report import Report, seed_table
from analyses.report.document import MAX_ROWS, MAX_VIEWS
from mechproc.errors import ConfigError, StoreError
from mechproc.result import Result

from .examples import HOSTILE, view

SCORES = Result(
    "accuracy", np.array([[0.1, 0.2, 0.1, 0.2, 0.1, 0.2], [0.9, 0.8, 0.9, 0.8, 0.9, np.nan]]), ("arm", "seed"),
    {"arm": ["random", "attention"], "seed": range(6)}, "fraction", "higher is better", "what longer training would do",
)  # fmt: skip


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: dict[str, str] = {}
        self.text: list[str] = []
        self.style = ""
        self._open: str | None = None
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        self._open = dict(attrs).get("id") if tag == "script" else None

    def handle_endtag(self, tag):
        self._inside, self._open = "", None

    def handle_data(self, data):
        if self._open:
            self.blocks[self._open] = data
        elif self._inside == "style":
            self.style += data
        elif self._inside != "script":
            self.text.append(data)

    def count(self, tag: str) -> int:
        return sum(t == tag for t, _ in self.tags)


def full() -> Report:
    report = Report("Sets & haystacks", "eight seeds").heading("One").text(f"First {HOSTILE}.\n\nSecond.")
    report.figure(figures.arms(SCORES), "Scores").heading("Two").table(SCORES).heading("Three", 3)
    return report.figure(view(["k1", HOSTILE, "q1"]), "Attention of two heads")


class TestPage:
    def test_makes_no_network_request(self):
        page = Page(full().html())
        for tag, attributes in page.tags:
            assert not {"src", "srcset", "data", "action"} & set(attributes), (tag, attributes)
            assert (attributes.get("href") or "#").startswith("#")
            assert tag not in ("link", "iframe", "object", "base", "img")
        (policy,) = [a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a]
        assert policy and "default-src 'none'" in policy
        assert not re.search(r"https?:|\*|unsafe-eval|script-src[^;]*unsafe-inline", policy)

    def test_the_only_script_that_runs_is_its_own(self):
        html = full().html()
        page = Page(html)
        (nonce,) = re.findall(r"script-src 'nonce-(\w+)'", html)
        run = [a for t, a in page.tags if t == "script" and a.get("type") is None]
        assert run == [{"nonce": nonce}] * 2
        assert {a["type"] for t, a in page.tags if t == "script" and "type" in a} == {"application/json", "text/plain"}

    def test_the_library_is_there_once_and_only_when_needed(self):
        def libraries(report: Report) -> list[str]:
            return [name for name in Page(report.html()).blocks if name.startswith("library")]

        assert libraries(full().figure(view(["a", "b"]), "Again")) == ["library-circuitsvis"]
        assert libraries(Report("One figure").figure(figures.arms(SCORES), "Scores")) == []
        only_text = Report("Nothing to draw").text("words").html()
        assert "<script" not in only_text and len(only_text) < 12_000

    def test_the_library_unpacks_to_what_the_package_ships(self):
        bundle = gzip.decompress(base64.b64decode(packed("circuitsvis"))).decode()
        assert "CircuitsVis" in bundle[:200] and "sourceMappingURL=" not in bundle

    def test_size(self):
        assert len(full().html().encode()) < 1_200_000

    def test_text_is_escaped_and_reads_without_javascript(self):
        page = Page(full().html())
        assert page.count("noscript") == 1
        assert "".join(page.text).count(HOSTILE) == 1  # as text; the token is in the data
        assert page.count("h2") == 2 and page.count("h3") == 1 and page.count("img") == 0
        assert json.loads(page.blocks["figure-2-1-data"])["tokens"][1].startswith("</script>")

    def test_the_same_report_is_the_same_page(self):
        assert full().html() == full().html()

    def test_notes_are_set_apart(self):
        page = Page(Report("T").note(f"Read {HOSTILE} first.").table(pd.DataFrame({"a": [1]}), "A", ["One."]).html())
        assert [a.get("class") for t, a in page.tags if t == "p"].count(
            "note"
        ) == 3  # one is for browsers without scripts
        assert f"Read {HOSTILE} first." in page.text and "One." in page.text

    def test_contents_from_three_headings_on(self):
        report = Report("T").heading("A").heading("B")
        assert Page(report.html()).count("nav") == 0
        page = Page(report.heading("C & D").html())
        links = [a["href"] for t, a in page.tags if t == "a"]
        assert links == [f"#{a['id']}" for t, a in page.tags if t == "h2"] and len(links) == 3

    def test_a_caption_is_asked_for(self):
        with pytest.raises(ConfigError, match="caption"):
            Report("T").figure(go.Figure())
        with pytest.raises(ConfigError, match="caption"):
            Report("T").table(pd.DataFrame({"a": [1]}))

    def test_figures_bring_their_own_caption_once(self):
        page = Page(full().html())
        assert "6 seeds. Each dot is a seed" in "".join(page.text)
        assert "".join(page.text).count("6 seeds. Each dot is a seed") == 1  # not in the picture as well

    def test_write_is_whole_or_not_at_all(self, tmp_path):
        path = tmp_path / "report.html"
        Report("First").write(path)
        Report("Second").write(path)
        assert "Second" in path.read_text(encoding="utf-8") and list(tmp_path.iterdir()) == [path]
        with pytest.raises(StoreError, match="cannot be written"):
            Report("T").write(tmp_path / "nowhere" / "report.html")


class TestNumbers:
    def test_floats_are_rounded_and_nothing_else(self):
        values = {"a": [0.123456, 1.23456, 12345.6789, 1e-7 / 3], "n": 123456, "s": "0.123456", "b": True, "none": None}
        assert plain(values) == values | {"a": [0.1235, 1.235, 12345.679, 3.333e-8]}

    def test_numpy_nan_and_plotly_arrays(self):
        assert plain({"x": np.array([[1.0, np.nan]]), "n": np.int64(3)}) == {"x": [[1.0, None]], "n": 3}
        spec = {"bdata": base64.b64encode(np.arange(6, dtype="<f4").tobytes()).decode(), "dtype": "f4", "shape": "2, 3"}
        assert plain(spec) == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]

    def test_json_cannot_end_its_script(self):
        text = to_json(["</script>", "<!--"])
        assert "<" not in text and json.loads(text) == ["</script>", "<!--"]


class TestDownloads:
    def test_every_figure_has_its_numbers_as_csv_and_as_a_table(self):
        page = Page(full().html())
        rows = gzip.decompress(base64.b64decode(page.blocks["figure-1-csv"])).decode().splitlines()
        assert rows[0] == "mark,x,y" and rows[1].startswith('"random, seed 0",0.1,')
        report = Report("T").figure(figures.arms(SCORES), "Scores", SCORES)
        rows = csv_of(report, "figure-1")
        assert rows[:2] == ["arm,seed,value,note", "random,0,0.1,"] and rows[12] == "attention,5,,missing"
        assert "Figure 1 in numbers" in Page(report.html()).text

    def test_a_figure_is_told_to_who_does_not_see_it(self):
        html = Report("T").figure(figures.arms(SCORES), "Scores", SCORES).html()
        (label,) = re.findall(r'aria-label="(accuracy[^"]*)"', html)
        assert label.startswith("accuracy. Highest 0.9 at arm attention, seed 0, lowest 0.1 at arm random, seed 0,")
        assert "1 cells missing" in label

    def test_a_table_that_is_cut_can_be_downloaded_whole(self):
        report = Report("T").table(pd.DataFrame({"n": range(MAX_ROWS + 5)}), "Many")
        assert csv_of(report, "figure-table-1") == ["n", *map(str, range(MAX_ROWS + 5))]
        assert "figure-table-1-csv" not in Page(Report("T").table(pd.DataFrame({"n": [1]}), "Few").html()).blocks

    def test_figures_in_the_evidence_on_a_part_can_be_downloaded_too(self):
        report = Report("T")
        report.about("L0.H1").figure(figures.arms(SCORES), "Scores", SCORES)
        html = report.html()
        assert 'data-svg="evidence-1-1-1"' in html and 'data-csv="evidence-1-1-csv"' in html
        assert csv_of(report, "evidence-1-1")[0] == "arm,seed,value,note"

    def test_attention_patterns_can_be_downloaded_with_their_tokens(self):
        rows = csv_of(Report("T").figure(view(["a", HOSTILE, "b"]), "Attention"), "figure-1")
        assert rows[1] == "0,L0.H0,0,a,0,a,1.0"
        assert len(rows) == 1 + 2 * 6 and HOSTILE[:12] in "\n".join(rows)


def csv_of(report: Report, block: str) -> list[str]:
    return gzip.decompress(base64.b64decode(Page(report.html()).blocks[f"{block}-csv"])).decode().splitlines()


class TestTable:
    def test_seed_table(self):
        table = seed_table(SCORES)
        assert list(table.columns) == ["arm", "mean", "95 % interval", "seeds", *(f"seed {s}" for s in range(6))]
        assert table.loc[0, "mean"] == "0.150"
        assert table.loc[0, "95 % interval"] == "0.100 to 0.200"
        assert table.loc[1, "mean"] == table.loc[1, "95 % interval"] == table.loc[1, "seed 5"] == "missing"
        few = seed_table(SCORES.select(seed=[0, 1]))
        assert few.loc[1, "mean"] == "0.850" and few.loc[1, "95 % interval"] == "too few seeds"

    def test_undefined_cells_and_their_reasons_are_printed(self):
        values = np.array([[0.25, 0.5], [np.nan, np.nan]])
        axes = {"part": ["L0.H0", "pos"], "seed": [0, 1]}
        effects = Result(
            "accuracy lost", values, tuple(axes), axes, "fraction", "positive: it hurts", "why",
            undefined=[({"part": "pos"}, "the same in every item")],
        )  # fmt: skip
        text = "".join(Page(Report("T").table(effects, "By part").html()).text)
        assert text.count("undefined") == 5  # mean, interval, two seeds, and the note
        assert "part pos undefined: the same in every item" in text
        assert "By part. Accuracy lost (fraction; positive: it hurts). 2 seeds. Heads and neurons" in text

    def test_cells_without_a_number_say_so_where_there_are_no_seeds(self):
        rates = Result("rate", np.array([0.5, np.nan, np.nan]), ("cell",), {"cell": ["a", "b", "c"]}, "fraction",
                       "higher: more", "why", undefined=[({"cell": "c"}, "no part counts")])  # fmt: skip
        cells = [row[-1].text for row in Report("T").table(rates).blocks[0].table.rows]
        assert cells == ["0.5", "missing", "undefined"]

    def test_heads_by_index_have_no_mean_over_seeds(self):
        axes = {"part": ["L0.H0", "L0.mlp"], "seed": list(range(8))}
        effects = Result("lost", np.full((2, 8), 0.25), tuple(axes), axes, "fraction", "positive: it hurts", "why")
        table = seed_table(effects)
        assert table.loc[0, "mean"] == table.loc[0, "95 % interval"] == "no mean" and table.loc[0, "seed 3"] == "0.250"
        assert table.loc[1, "mean"] == "0.250"
        text = "".join(Page(Report("T").table(effects, "By part").html()).text)
        assert "named by their index have no mean over seeds" in text

    def test_warnings_come_first_in_a_caption(self):
        warned = dataclasses.replace(SCORES, metadata={"warnings": ["no donor beats its baseline"]})
        text = "".join(Page(Report("T").table(warned).html()).text)
        assert "Table 1. Warning: no donor beats its baseline. Accuracy (fraction" in text

    def test_long_texts_are_wrapped_and_whole(self):
        settings = ", ".join(f"setting_{i} {i}" for i in range(100))
        page = Page(Report("T").table(pd.DataFrame({"what": ["task"], "settings": [settings]}), "Settings").html())
        assert settings in page.text
        assert [a.get("class") for t, a in page.tags if t == "td"] == [None, "long"]
        assert re.search(r"td\.long {[^}]*white-space: normal", page.style)

    def test_blank_cells_can_be_seen(self):
        page = Page(Report("T").table(pd.DataFrame({"token": [" ", "\n", "a"], "n": [1, 2, 3]}), "Tokens").html())
        assert "'␣'" in page.text and r"'\n'" in page.text

    def test_rows_are_capped_and_the_page_says_so(self):
        table = pd.DataFrame({"n": range(MAX_ROWS + 5), "x": np.linspace(0, 1, MAX_ROWS + 5)})
        page = Page(Report("T").table(table, "Many").html())
        assert page.count("tr") == MAX_ROWS + 1
        assert f"The first {MAX_ROWS} of {MAX_ROWS + 5} rows; all of them are in the CSV file." in page.text

    def test_cells_are_escaped(self):
        page = Page(Report("T").table(pd.DataFrame({HOSTILE: [HOSTILE]}), "Hostile").html())
        assert page.count("img") == 0 and page.text.count(HOSTILE) == 2


class TestAttention:
    def test_a_page_has_a_limited_number_of_views_and_names_the_rest(self):
        report = Report("T")
        for _ in range(MAX_VIEWS // 4 + 1):
            report.figure(view(["a", "b"], n_items=4), "Attention")
        page = Page(report.html())
        assert sum(name.endswith("-data") for name in page.blocks) == MAX_VIEWS
        text = "".join(page.text)
        assert text.count("Attention. Attention of 2 heads on 4 items") == MAX_VIEWS // 4
        assert "4 more attention patterns are not drawn: a page has 8." in text

    def test_views_on_the_edge_of_the_limit_are_drawn_in_part(self):
        report = Report("T").figure(view(["a", "b"], n_items=6), "A").figure(view(["a", "b"], n_items=6), "B")
        assert report.n_views_left_out == 12 - MAX_VIEWS
