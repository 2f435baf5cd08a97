"""From finished runs to a page, on a study that is too small for a finding."""

import json

import numpy as np
import pytest

from mechproc.cli.demo import run_demo
from mechproc.studies.set_to_haystack import ARMS


@pytest.fixture(scope="module")
def demo(tmp_path_factory, tiny):
    out = tmp_path_factory.mktemp("demo")
    return out, run_demo(out, (0, 1), tiny, workers=1)


@pytest.mark.slow
def test_the_sentences_claim_nothing_that_two_seeds_cannot_carry(demo):
    _, findings = demo
    first, second = findings.sentences()
    assert "too few seeds (2 of 8)" in first
    assert "helps haystack" not in first.lower()
    assert "undecided" in second  # two seeds have no bounded interval


@pytest.mark.slow
def test_the_head_is_the_one_that_attends_most_after_training(demo):
    _, findings = demo
    for seed, head in findings.heads.items():
        assert head == findings.ranked_heads[seed][0]
        effects = findings.ablations.select(ablation="mean", seed=seed)
        of_heads = {
            p: effects.select(part=p).values.item()
            for p in effects.coordinates["part"]
            if p.count(".") == 1 and ".H" in p
        }
        assert len(of_heads) == 4
        column = list(findings.heads).index(seed)
        assert findings.head_effect[column] == of_heads.pop(head)
        assert findings.other_heads_effect[column] == pytest.approx(np.mean(list(of_heads.values())))


@pytest.mark.slow
def test_the_page_and_the_numbers_are_written_and_agree(demo):
    out, findings = demo
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    page = (out / "report.html").read_text(encoding="utf-8")
    assert summary["finding"] == list(findings.sentences())
    assert summary["trained"] == 2 + 2 * len(ARMS)
    for arm, values in summary["accuracy"].items():
        assert values == findings.scores.select(arm=arm).values.tolist()
    assert "http://" not in page.split("<script")[0] and "https://" not in page.split("<script")[0]
    (note, *_) = findings.verdicts.notes()  # models as small as these do not know their rule
    assert page.index("above the best predictor") < page.index("too few seeds (2 of 8)")
    assert summary["notes"][0] == note and note in findings.scores.metadata["warnings"]
    assert "The pretrained models on their own rule" in page and "undefined" in page


@pytest.mark.slow
def test_a_second_demo_trains_nothing(demo, tiny, capsys):
    out, findings = demo
    again = run_demo(out, (0, 1), tiny, workers=1)
    assert "0 trainings to do" in capsys.readouterr().out
    assert again.sentences() == findings.sentences()


@pytest.mark.slow
def test_the_page_is_drawn_names_every_head_and_a_click_opens_its_evidence(demo, browse):
    out, findings = demo
    act = """
      const cell = document.querySelector('.cells a[data-row]');
      cell.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true }));
      return document.querySelector("dialog[open]").innerText;
    """
    seen = browse((out / "report.html").read_text(encoding="utf-8"), act)
    for watched in ("fetched", "violations", "errors"):
        assert seen.watched[watched] == []
    for head in findings.heads.values():
        assert f">{head}<" in seen.dom
    assert all(f">L{layer}.H{index}</h4>" in seen.dom for layer in range(2) for index in range(2))
    assert "Accuracy lost" in seen.watched["found"] or "accuracy" in seen.watched["found"]
