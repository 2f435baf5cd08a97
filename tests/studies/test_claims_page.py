from pathlib import Path

import pytest

from mechproc.cli import main
from mechproc.pages import between
from mechproc.runs.store import Store
from mechproc.studies import claims_page
from mechproc.studies.registry import load

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found():
    return list(claims_page.verdicts(Store(ROOT / "no-runs", ROOT / "results" / "records")))


def test_the_page_says_what_the_records_say(found):
    """Run `mechproc study claims --store none --write docs/claims.md` when records were added."""
    assert between(ROOT / "docs" / "claims.md", claims_page.NAME) == claims_page.markdown(found)


def test_every_claim_is_counted_once_at_each_scale(found):
    named = [(study, verdict.claim.name) for study, verdict in found]
    assert len(named) == len(set(named))
    for scale in ("laptop", "paper"):
        study = load("rules-by-task", scale)
        assert [name for of, name in named if of == study.name] == [claim.name for claim in study.claims]
    assert claims_page.summary([v for _, v in found]).startswith(f"claims declared: {len(named)}, ")


def test_a_claim_without_runs_has_no_row(found):
    text = claims_page.markdown([each for each in found if each[1].n_seeds == 0])
    assert text.count("\n| ") == 2 and "No seed is complete in all arms of: " in text


def test_the_page_has_every_study(tmp_path, capsys):
    page = tmp_path / "page.md"
    assert main(["study", "claims", "rules-by-task", "--write", str(page)]) != 0
    assert "NAME = 'rules-by-task' is not allowed" in capsys.readouterr().err and not page.exists()
