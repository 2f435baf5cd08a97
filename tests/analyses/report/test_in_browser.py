"""Pages in a real browser; skipped where there is none."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from analyses import figures
from analyses.report import Report
from analyses.report.sections import study
from mechproc.result import Result
from mechproc.studies import perturbation

from .examples import HOSTILE, view

pytestmark = pytest.mark.slow

TOKENS = ["a", HOSTILE, "<b>bold</b>", "\"'", "\N{SMILING FACE WITH OPEN MOUTH}", "x\u2028y"]
PARTS = ["embed", "L0.H0", "L0.H1", "L0.mlp"]
EFFECTS = Result(
    "accuracy lost", np.array([[0.5, 0.4], [0.1, 0.2], [0.3, np.nan], [np.nan, np.nan]]), ("part", "seed"),
    {"part": PARTS, "seed": [0, 1]}, "fraction", "positive: it hurts", "why",
    undefined=[({"part": "L0.mlp"}, "the same in every item")],
)  # fmt: skip
CLEAN = {"fetched": [], "violations": [], "errors": []}


@pytest.fixture
def page() -> str:
    report = Report("Sets & haystacks").text(f"First {HOSTILE}.")
    report.figure(figures.ablation_map(EFFECTS), "Ablation", EFFECTS)
    return report.figure(view(TOKENS), "Attention").figure(view(["a", "b"], 3), "Another item").html()


def clean(seen) -> bool:
    return {key: seen.watched[key] for key in CLEAN} == CLEAN and "data-owned" not in seen.dom


def test_everything_is_drawn_and_nothing_is_fetched(page, browse):
    seen = browse(page)
    assert clean(seen), seen.watched
    assert "could not be drawn" not in seen.dom and "JavaScript draws" not in seen.dom
    assert seen.dom.count("<canvas") == (2 + 1) + (3 + 1)  # each head, and the one that is shown large
    assert ">L0.H1</h4>" in seen.dom


def test_a_click_and_a_key_open_the_evidence_on_a_part(page, browse):
    act = """
      const cell = [...document.querySelectorAll(".cells a")].find(a => a.dataset.row === "1");
      cell.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true }));
      const first = document.querySelector("dialog[open]").innerText;
      document.querySelector("dialog .close").click();
      await new Promise(done => setTimeout(done, 50));
      const start = document.querySelector('.cells a[tabindex="0"]');
      start.focus();
      start.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true, cancelable: true }));
      return [first, document.querySelector("dialog[open]") === null, document.activeElement.dataset.row];
    """
    seen = browse(page, act)
    assert clean(seen), seen.watched
    text, closed, row = seen.watched["found"]
    assert "L0.H0" in text and "0.100" in text and "0.200" in text and "L0.H1" not in text
    assert closed and row == "1"


def test_figures_are_saved_as_svg_and_csv(page, browse):
    act = """
      document.querySelector("[data-svg]").click();
      document.querySelector("[data-csv]").click();
      document.querySelector("[data-attention]").click();
      await new Promise(done => setTimeout(done, 300));
    """
    seen = browse(page, act)
    numbers = next(each for each in seen.watched["saved"] if each["type"] == "text/csv")
    pictures = [each for each in seen.watched["saved"] if each["type"] == "image/svg+xml"]
    picture, patterns = sorted(pictures, key=lambda each: "L0.mlp" not in each["text"])
    assert picture["text"].startswith("<svg") and "var(" not in picture["text"] and "L0.H1" in picture["text"]
    drawn = ElementTree.fromstring(patterns["text"])
    assert "</script><im" in "".join(drawn.itertext()) and len(drawn.findall("{*}g")) == 2  # a token, the heads
    assert len(drawn.findall(".//{*}g/{*}rect")) == 2 * sum(range(len(TOKENS) + 1))
    assert numbers["text"].splitlines()[:2] == ["part,seed,value,note", "embed,0,0.5,"]
    assert "L0.H1,1,,missing" in numbers["text"] and "undefined: the same in every item" in numbers["text"]
    assert clean(seen), seen.watched


@pytest.mark.parametrize("dark", [False, True])
def test_it_is_light_or_dark_as_the_reader_has_it(page, browse, dark):
    seen = browse(page, "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color];", dark=dark)
    ground, ink = map(brightness, seen.watched["found"])
    assert (ground < ink) == dark
    assert clean(seen), seen.watched


def test_it_fits_a_telephone(page, browse):
    """A window has a least width; a frame has none. Its scripts do not run, under the policy of the page around it."""
    outer = """<meta http-equiv="Content-Security-Policy" content="script-src 'nonce-a'"><title>t</title><body>
      <script nonce="a">document.body.dataset.state = "ready";</script>"""
    act = f"""
      const frame = document.createElement("iframe");
      frame.style.width = "375px";
      frame.srcdoc = {json.dumps(page).replace("<", chr(92) + "u003c")};
      const loaded = new Promise(done => frame.addEventListener("load", done));
      document.body.append(frame);
      await loaded;
      const root = frame.contentDocument.documentElement;
      return [root.scrollWidth, frame.contentWindow.innerWidth];
    """
    scrolled, shown = browse(outer, act).watched["found"]
    assert scrolled <= shown == 375


def brightness(colour: str) -> float:
    return sum(float(x) for x in colour.removeprefix("rgb(").removesuffix(")").split(",")[:3])


def test_an_attention_view_of_its_own_is_drawn_without_a_network(browse):
    seen = browse(view(TOKENS, n_items=2).html())
    assert seen.dom.count("<canvas") == 2 * (2 + 1) and "could not be drawn" not in seen.dom
    assert clean(seen), seen.watched


def test_the_policy_refuses_what_would_be_fetched(page, browse):
    seen = browse(page.replace("<main>", '<main><img src="https://mechproc.invalid/x.png">', 1))
    assert seen.watched["violations"] == ["https://mechproc.invalid/x.png"]


def test_a_broken_library_leaves_a_readable_page(page, browse):
    seen = browse(page.replace('id="library-circuitsvis">H4s', 'id="library-circuitsvis">AAA', 1))
    assert "This figure could not be drawn" in seen.dom and ">embed<" in seen.dom


def test_a_page_about_a_study(generated, browse):
    planned = perturbation.study("laptop")
    report = Report("Perturbation")
    study.add(report, planned, generated(points=5))
    act = """
      const cell = [...document.querySelectorAll(".cells a")].find(a => a.textContent.includes("haystack: permuted"));
      cell.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true }));
      return document.querySelector("dialog[open]").innerText;
    """
    seen = browse(report.html(), act, dark=True)
    assert clean(seen), seen.watched
    assert "haystack: permuted" in seen.watched["found"] and "seed 19" in seen.watched["found"]
    for arm in planned.arms:
        assert arm.removeprefix("haystack: ") in seen.dom
