"""A page in a real browser: what is drawn, what is fetched, what it complains of, and what happens on a click."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WATCH = """
window.watched = { fetched: [], violations: [], errors: [], saved: [], found: null };
document.addEventListener("securitypolicyviolation", e => watched.violations.push(e.blockedURI));
window.addEventListener("error", e => watched.errors.push(e.message));
window.addEventListener("unhandledrejection", e => watched.errors.push(String(e.reason)));
const error = console.error;
console.error = (...all) => { watched.errors.push(all.join(" ")); error(...all); };
const blobs = [];
const url = URL.createObjectURL;
URL.createObjectURL = blob => { blobs.push(blob); return url.call(URL, blob); };
const act = async () => { ACT };
const said = new MutationObserver(async () => {
  if (document.body?.dataset.state !== "ready") return;
  said.disconnect();
  watched.ready = performance.now();
  try { watched.found = await act(); } catch (e) { watched.errors.push(String(e)); }
  await new Promise(done => setTimeout(done, 300));
  watched.saved = await Promise.all(blobs.map(async b => ({ type: b.type, text: await b.text() })));
  watched.fetched = performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("blob:"));
  document.documentElement.dataset.watched = JSON.stringify(watched);
});
said.observe(document.documentElement, { attributes: true, subtree: true });
"""


class Seen(NamedTuple):
    """What a browser made of a page."""

    dom: str
    """The elements after everything was drawn, without scripts."""
    watched: dict[str, Any]
    """``fetched``, ``violations``, ``errors``, ``saved`` (type and text of each download), ``found``, ``ready`` (in
    milliseconds)."""


@pytest.fixture
def browse(tmp_path: Path) -> Callable[..., Seen]:
    """Open a page and run the body of an async function in it, ``act``, whose result is ``found``."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: the page is not drawn")

    def opened(page: str, act: str = "", dark: bool = False) -> Seen:
        (nonce,) = re.findall(r"script-src 'nonce-(\w+)'", page)
        path = tmp_path / "page.html"
        watch = WATCH.replace("ACT", act)
        path.write_text(
            page.replace("<title>", f'<script nonce="{nonce}">{watch}</script><title>', 1), encoding="utf-8"
        )
        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1200,3000", "--virtual-time-budget=20000", "--dump-dom",
            *(["--blink-settings=preferredColorScheme=0"] if dark else []),
        ]  # fmt: skip
        run = subprocess.run(
            [str(CHROMIUM), *flags, path.as_uri()], capture_output=True, text=True, timeout=120, check=True
        )
        (watched,) = re.findall(r'data-watched="([^"]*)"', run.stdout)
        dom = re.sub(r"<script.*?</script>", "", run.stdout, flags=re.DOTALL)
        return Seen(dom, json.loads(html.unescape(watched)))

    return opened


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The store of the benchmark of pages, whose scores are random numbers: a function of the identities left out."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import generated

    return generated.GeneratedStore
