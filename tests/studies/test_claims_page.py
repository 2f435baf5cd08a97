from pathlib import Path

import pytest

from mechproc.cli import main
from mechproc.pages import between
from mechproc.runs.store import Store
from mechproc.statistics.claims import Claim, against
from mechproc.studies import claims_page
from mechproc.studies.registry import load
from mechproc.studies.set_to_haystack import transfer
from mechproc.studies.study import Study

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found():
    return list(claims_page.verdicts(Store(ROOT / "no-runs", ROOT / "results" / "records"), True))


def test_the_page_says_what_the_records_say(found):
    """When records were added, run
    `mechproc study claims --store none --allow-mixed-provenance --write docs/claims.md --write README.md`."""
    assert between(ROOT / "docs" / "claims.md", claims_page.NAME) == claims_page.markdown(found)
    assert between(ROOT / "README.md", "findings") == claims_page.findings(found)


def test_every_claim_is_counted_once_at_each_scale(found):
    named = [(study, verdict.claim.name) for study, verdict in found]
    assert len(named) == len(set(named))
    for scale in ("laptop", "paper"):
        study = load("rules-by-task", scale)
        assert [name for of, name in named if of == study.name] == [claim.name for claim in study.claims]
    assert claims_page.summary([v for _, v in found]).startswith(f"claims declared: {len(named)}, ")


def test_findings_are_the_claims_that_are_decided(found, tmp_path):
    lines = claims_page.findings(found).splitlines()
    assert len(lines) == sum(verdict.word in ("supported", "refuted") for _, verdict in found) > 0
    assert (
        lines[0].startswith("- On the haystack, the attention alone")
        and "**Supported** (rules by task (paper)): " in lines[0]
    )
    refuted = next(line for line in lines if line.startswith("- The best carrier depends on rule and task"))
    assert "**Refuted** (rules by task (laptop)): reversed addition: eca, full against" in refuted
    open_ = [each for each in found if each[1].word not in ("supported", "refuted")]
    page = tmp_path / "page.md"
    page.write_text("<!-- findings:begin -->\n\n<!-- findings:end -->")
    claims_page.write(page, open_)
    assert between(page, "findings") == "No claim is decided so far."


def test_a_claim_without_runs_has_no_row(found):
    text = claims_page.markdown([each for each in found if each[1].n_seeds == 0])
    assert text.count("\n| ") == 2 and "No seed is complete in all arms of: " in text


def test_the_page_has_every_study(tmp_path, capsys):
    page = tmp_path / "page.md"
    assert main(["study", "claims", "rules-by-task", "--write", str(page)]) != 0
    assert "NAME = 'rules-by-task' is not allowed" in capsys.readouterr().err and not page.exists()


def test_claims_of_mixed_provenances_are_named_and_have_no_word_unless_allowed(tiny, store, monkeypatch):
    runs = [(arm, transfer(arm, seed, tiny)) for arm in ("random", "full", "attention") for seed in (0, 1)]
    claims = [Claim(arm, f"{arm} helps.", (against(arm, "random", 0.1),)) for arm in ("full", "attention")]
    study = Study("small", runs, claims=claims)
    study.complete(store, workers=1)
    provenance, elsewhere = store.provenance, study.run_of("full", 1)
    monkeypatch.setattr(store, "provenance", lambda r: provenance(r) | ({"simd": "other"} if r == elsewhere else {}))
    refused, judged = study.judge_claims(store)
    assert refused.word == "mixed provenance" and not refused.contrasts
    assert judged.word == "too few seeds (2 of 10)" and judged.contrasts
    text = claims_page.markdown([("small", refused), ("small", judged)])
    assert "| full | small | full helps. | **mixed provenance** |" in text
    assert "- full (small): simd: " in text and "- attention (small): simd" not in text
    allowed = study.judge_claims(store, allow_mixed_provenance=True)[0]
    assert allowed.word == "too few seeds (2 of 10)" and "Note: mixed provenance, simd: " in str(allowed)
