"""Size, building time and time to interactive of a study's page: ``python tests/benchmarks/pages.py``.

The study is that of six rules, four tasks and ten seeds at the paper's size, its scores random numbers. Writes
``results/pages.json``; ``make tables`` puts it into ``docs/report.md``. Time to interactive is taken in Chromium, from
the start of the page's loading until its scripts have run; without Chromium there is none.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from generated import GeneratedStore
from measure import machine

from analyses.report.collect import report
from mechproc.files import write_json

ROOT = Path(__file__).parents[2]
REPEATS = 3
READY = """
new MutationObserver((_, seen) => {
  if (document.body?.dataset.state !== "ready") return;
  seen.disconnect();
  document.documentElement.dataset.ms = performance.now();
}).observe(document.documentElement, { attributes: true, subtree: true });
"""


def main() -> None:
    """Build the page, open it, write the record."""
    started = time.perf_counter()
    page = report(["rules-by-task"], GeneratedStore(), scale="paper")
    html = page.html()
    measured: dict[str, Any] = {
        "study": "rules-by-task, paper's size: 82 arms, 10 seeds",
        "build_s": round(time.perf_counter() - started, 1),
        "megabytes": round(len(html.encode()) / 1e6, 2),
        "figures": sum(len(block.figures) for block in page.blocks if block.kind == "figure"),
        "interactive_ms": interactive(html),
    }
    measured["load"] = round(os.getloadavg()[0], 1)
    write_json(ROOT / "results" / "pages.json", {"machine": machine(), "measured": measured})
    print(measured)


def interactive(html: str) -> list[float]:
    """Milliseconds until the page is ready, several times; empty without Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        return []
    (nonce,) = re.findall(r"script-src 'nonce-(\w+)'", html)
    times = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(
            html.replace("<title>", f'<script nonce="{nonce}">{READY}</script><title>', 1), encoding="utf-8"
        )
        for _ in range(REPEATS):
            profile = f"--user-data-dir={folder}/profile"
            flags = ["--headless", "--no-sandbox", "--disable-gpu", profile, "--timeout=30000", "--dump-dom"]
            done = subprocess.run([chromium, *flags, path.as_uri()], capture_output=True, text=True, timeout=120)
            times += [round(float(ms), 1) for ms in re.findall(r'data-ms="([\d.]+)"', done.stdout)]
    return times


if __name__ == "__main__":
    main()
