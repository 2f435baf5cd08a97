"""``make chaos``: kills, full disks, damaged files, inputs of every kind. Prints its figures and keeps them."""

from __future__ import annotations

import argparse
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import damage
import disks
import inputs
import kills
import torch

from mechproc.files import atomic_write, read_json, write_json
from mechproc.threads import usable_cores

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- written by make chaos -->", "<!-- end -->"


def main() -> None:
    """Run the sections asked for, all by default, and write results/faults.json and the figures of docs/faults.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="some of kills, at-once, damage, full-disk, "
                        "read-only, vanished, inputs")  # fmt: skip
    parser.add_argument("--kills", type=int, default=50, help="how often the study is killed (default: 50)")
    parser.add_argument("--flips", type=int, default=20, help="flipped bits for each kind of file (default: 20)")
    parser.add_argument("--cuts", type=int, default=10, help="truncations of each kind of file (default: 10)")
    parser.add_argument("--inputs", type=int, default=1000, help="inputs of each kind (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the random instants and places (default: 0)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sections: dict[str, Callable[[Path], dict[str, Any]]] = {
        "kills": lambda root: kills.kills(root, args.kills, args.seed),
        "at-once": kills.at_once,
        "damage": lambda root: damage.damaged(
            root / "study", damage.prepare(root / "study"), args.flips, args.cuts, args.seed
        ),
        "full-disk": disks.full,
        "read-only": disks.read_only,
        "vanished": disks.vanished,
        "inputs": lambda root: inputs.limited(root / "place", args.inputs, args.seed),
    }
    unknown = set(args.sections) - sections.keys()
    if unknown:
        parser.error(f"unknown sections: {', '.join(sorted(unknown))}")
    out, page = ROOT / "results" / "faults.json", ROOT / "docs" / "faults.md"
    record = read_json(out) if out.exists() else {}
    for name in args.sections or sections:
        if name in ("full-disk", "read-only", "vanished") and not disks.can_mount():
            print(f"{name}: skipped, as this process may not mount a disk of its own")
            continue
        root, began = Path(tempfile.mkdtemp(prefix="chaos-")), time.monotonic()
        try:
            figures = sections[name](root)
        finally:
            shutil.rmtree(root, ignore_errors=True)
        made = {"date": datetime.now(UTC).date().isoformat(), "machine": _machine(), "seed": args.seed}
        record[name] = made | {"figures": figures}
        print(f"{name} ({time.monotonic() - began:.0f} s)")
        print(*_lines(figures), sep="\n", flush=True)
        write_json(out, record)
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        atomic_write(page, f"{before}{BEGIN}\n{_page(record)}{END}{after}".encode())


def _machine() -> str:
    return f"{platform.system()} {platform.release()}, {platform.machine()}, {usable_cores()} cores"


def _lines(figures: dict[str, Any]) -> list[str]:
    return [
        f"  {name}: "
        + (", ".join(f"{n} {what}" for what, n in value.items()) if isinstance(value, dict) else str(value))
        for name, value in figures.items()
    ]


def _page(record: dict[str, Any]) -> str:
    text = ""
    for name, made in record.items():
        text += f"\n**{name}** ({made['date']}, {made['machine']}, seed {made['seed']})\n\n"
        if all(isinstance(value, dict) for value in made["figures"].values()):
            columns = list(next(iter(made["figures"].values())))
            text += f"| kind | {' | '.join(columns)} |\n|{' --- |' * (1 + len(columns))}\n"
            for kind, counts in made["figures"].items():
                text += f"| {kind} | {' | '.join(str(counts[column]) for column in columns)} |\n"
        else:
            text += "".join(f"- {what}: {value}\n" for what, value in made["figures"].items())
    return text + "\n"


if __name__ == "__main__":
    main()
