"""Pages in Markdown: tables, and text between marks, which a command writes and the rest of the page surrounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mechproc.errors import StoreError
from mechproc.files import atomic_write


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table with a header row; every row has as many cells as the header."""
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (head, ["---"] * len(head), *rows))


def between(path: str | Path, name: str) -> str:
    """What stands in a page between ``<!-- name:begin -->`` and ``<!-- name:end -->``. Errors: ``StoreError``."""
    return _parts(Path(path), name)[1]


def write_between(path: str | Path, name: str, text: str) -> None:
    """Replace what ``between`` reads, atomically; the rest of the page stays. Errors: ``StoreError``."""
    before, _, after = _parts(Path(path), name)
    atomic_write(path, f"{before}{text}{after}".encode())


def write_sections(path: str | Path, sections: Mapping[str, str]) -> None:
    """``write_between`` for each text, by the name of its marks. Errors: ``StoreError``."""
    for name, text in sections.items():
        write_between(path, name, text)


def _parts(path: Path, name: str) -> tuple[str, str, str]:
    """A page before, between and after its marks; the marks and the line breaks beside them belong to the outside."""
    begin, end = f"<!-- {name}:begin -->\n", f"\n<!-- {name}:end -->"
    try:
        page = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    before, mark, rest = page.partition(begin)
    text, last, after = rest.partition(end)
    if not mark or not last or begin in rest or end in after:
        raise StoreError(f"{path} must have {begin.strip()} and {end.strip()} once, each on a line of its own")
    return before + begin, text, end + after
