"""The frame of a report: an HTML page that opens anywhere and asks nobody for anything.

The page's content-security policy allows no remote origin and no script but its own. plotly.js and the CircuitsVis
bundle are inlined once each, gzipped and in base64 (a third of their size), and unpacked by the browser.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import html
import json
import math
from importlib import resources
from typing import Any

import numpy as np

LIBRARIES = {"plotly": ("plotly", "package_data/plotly.min.js"), "circuitsvis": ("circuitsvis", "dist/cdn/iife.js")}
"""Where each library's JavaScript lies: package, path in it."""


def page(title: str, subtitle: str, body: str, views: list[dict[str, Any]]) -> str:
    """The whole document. ``body`` is HTML; each view is drawn into its element: ``{"id", "library", "data"}``."""
    used = [name for name in LIBRARIES if any(view["library"] == name for view in views)]
    data = "".join(_block(f"{view['id']}-data", "application/json", to_json(view["data"])) for view in views)
    libraries = "".join(_block(f"library-{name}", "text/plain", packed(name)) for name in used)
    nonce = hashlib.sha256((body + data).encode()).hexdigest()[:32]
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; img-src data: blob:; "
        "font-src data:; base-uri 'none'; form-action 'none'"
    )
    script = "" if not views else f'{data}{libraries}<script nonce="{nonce}">{SCRIPT}</script>'
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{html.escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<header><h1>{html.escape(title)}</h1>{f'<p class="subtitle">{html.escape(subtitle)}</p>' if subtitle else ""}</header>
<noscript><p class="note">The figures on this page are drawn by JavaScript, which is switched off here. The text, the
captions and the tables are complete without it.</p></noscript>
{body}
</main>
{script}
</body>
</html>
"""


@functools.cache
def packed(library: str) -> str:
    """A library's JavaScript, gzipped, in base64, without the line that asks the browser for a source map."""
    package, path = LIBRARIES[library]
    source = (resources.files(package) / path).read_text(encoding="utf-8")
    kept = "\n".join(line for line in source.splitlines() if not line.startswith("//# sourceMappingURL="))
    return base64.b64encode(gzip.compress(kept.encode(), compresslevel=9, mtime=0)).decode()


def to_json(value: Any) -> str:
    """JSON that can stand inside a ``<script>`` element: floats rounded, NaN as null, every ``<`` escaped."""
    return json.dumps(plain(value), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def plain(value: Any) -> Any:
    """``value`` as JSON values. Floats keep three decimals, or four digits below 1; no NaN."""
    if isinstance(value, dict):
        if "bdata" in value and "dtype" in value:  # how plotly spells an array
            return plain(_unpacked(value))
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return round(value, 3) if abs(value) >= 1 else float(f"{value:.4g}")
    return value


def _unpacked(array: dict[str, Any]) -> np.ndarray:
    flat = np.frombuffer(base64.b64decode(array["bdata"]), dtype=array["dtype"])
    shape = array.get("shape")
    return flat if shape is None else flat.reshape([int(n) for n in str(shape).split(",")])


def _block(name: str, kind: str, content: str) -> str:
    return f'<script type="{kind}" id="{name}">{content}</script>\n'


STYLE = """
:root { color-scheme: light dark; --page: #fbfaf7; --card: #ffffff; --ink: #22252a; --soft: #626870; --line: #e2e0d9;
  --accent: #2f6299; --stripe: #f5f4ef; }
@media screen and (prefers-color-scheme: dark) { :root { --page: #17191c; --card: #1e2125; --ink: #e3e2de;
  --soft: #9aa0a8; --line: #34383e; --accent: #8ab4e0; --stripe: #23262b; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 1.0625rem/1.62 "Iowan Old Style", "Palatino Linotype", Palatino, Georgia, "DejaVu Serif", serif; }
main { max-width: 61rem; margin: 0 auto; padding: 3.5rem 1.5rem 5rem; }
main > p, main > h2, main > h3, main > nav, header { max-width: 43rem; }
header { margin-bottom: 2.2rem; }
h1, h2, h3 { line-height: 1.22; font-weight: 600; text-wrap: balance; }
h1 { font-size: 2.15rem; letter-spacing: -0.012em; margin: 0; }
h2 { font-size: 1.42rem; margin: 3.2rem 0 0.7rem; }
h3 { font-size: 1.13rem; margin: 2.2rem 0 0.5rem; }
p { margin: 0 0 1rem; text-wrap: pretty; }
.subtitle { color: var(--soft); font-size: 1.13rem; line-height: 1.5; margin: 0.7rem 0 0; }
nav, figcaption, table, .note, .waiting {
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
nav { border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); padding: 0.7rem 0; margin-bottom: 2rem;
  font-size: 0.9rem; }
nav ol { margin: 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: 0.25rem 1.5rem; }
a { color: var(--accent); text-decoration: none; }
a:hover, a:focus-visible { text-decoration: underline; }
figure { margin: 1.8rem 0 2.4rem; }
figcaption { max-width: 46rem; color: var(--soft); font-size: 0.875rem; line-height: 1.5; margin-top: 0.7rem; }
figcaption b { color: var(--ink); font-weight: 600; }
.view { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 0.75rem;
  overflow-x: auto; }
.waiting { color: var(--soft); font-size: 0.875rem; text-align: center; padding: 4rem 0; margin: 0; }
.note { color: var(--soft); font-size: 0.875rem; line-height: 1.5;
  border-left: 3px solid var(--line); padding-left: 0.8rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.875rem; line-height: 1.4; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; border-bottom: 1.5px solid var(--ink); padding: 0.35rem 0.8rem 0.35rem 0.5rem;
  vertical-align: bottom; white-space: nowrap; }
td { white-space: nowrap; border-bottom: 1px solid var(--line); padding: 0.32rem 0.8rem 0.32rem 0.5rem; }
tbody tr:nth-child(even) { background: var(--stripe); }
th.number, td.number { text-align: right; }
td.nothing { color: var(--soft); font-style: italic; }
/* CircuitsVis brings colours of its own, made for white. */
.attention { background: #ffffff; color: #22252a; color-scheme: light; }
.attention [data-library] > div { max-width: 42rem !important; padding: 0 0.9rem !important;
  font: 0.8rem/1.3 system-ui, sans-serif; }
.attention [data-library] > div > div:first-of-type > div {
  width: 78px !important; flex: 0 0 78px !important; max-width: 78px !important; }
.attention h3 { font-size: 0.8rem; font-weight: 500; color: #626870; margin: 0.3rem 0 0.7rem; }
.attention h4 { font-size: 0.62rem; font-weight: 600; padding: 0 3px !important; line-height: 1.45; }
.attention h2 { font-size: 0.8rem; font-weight: 600; border-radius: 4px; margin: 0 !important;
  padding: 2px 8px !important; }
@media print {
  body { background: #ffffff; font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .view { border: none; padding: 0; }
}
"""

SCRIPT = """
"use strict";
const nonce = document.currentScript.nonce;
const read = id => document.getElementById(id).textContent;
const dark = matchMedia("screen and (prefers-color-scheme: dark)");
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

async function load(library) {
  const bytes = Uint8Array.from(atob(read("library-" + library)), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.nonce = nonce;
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  script.remove();  // it has run
}

// Figures keep their own colours for data; ink, rules and background follow the page.
function inks(layout) {
  const colours = { "font.color": colour("--ink"), paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    "modebar.bgcolor": "rgba(0,0,0,0)", "modebar.color": colour("--soft"), "modebar.activecolor": colour("--accent") };
  for (const axis of Object.keys(layout).filter(key => /^[xy]axis[0-9]*$/.test(key))) {
    colours[axis + ".gridcolor"] = colours[axis + ".zerolinecolor"] = colour("--line");
    colours[axis + ".linecolor"] = colours[axis + ".tickcolor"] = colour("--soft");
  }
  return colours;
}

const draw = {
  async plotly(element, figure) {
    // plotly shows a button that uploads the figure to a server unless it is told not to.
    const config = { displaylogo: false, showSendToCloud: false, plotlyServerURL: "", responsive: true,
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"], toImageButtonOptions: { format: "svg" } };
    await Plotly.newPlot(element, figure.data, figure.layout, config);
    const paint = () => Plotly.relayout(element, inks(element.layout));
    dark.addEventListener("change", paint);
    await paint();
  },
  async circuitsvis(element, props) { CircuitsVis.render(element.id, CircuitsVis.AttentionHeads, props); },
};

(async () => {
  const failed = (element, error) => {
    element.innerHTML = "<p class=waiting></p>";
    element.firstChild.textContent = "This figure could not be drawn: " + error.message;
  };
  for (const library of ["plotly", "circuitsvis"]) {
    const views = [...document.querySelectorAll(`[data-library=${library}]`)];
    let trouble = null;
    if (views.length) await load(library).catch(error => { trouble = error; });
    for (const element of views) {
      try {
        if (trouble) throw trouble;
        element.textContent = "";
        await draw[library](element, JSON.parse(read(element.id + "-data")));
      } catch (error) { failed(element, error); }
    }
  }
  document.body.dataset.state = "ready";
})();
"""
