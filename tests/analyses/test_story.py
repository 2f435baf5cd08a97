"""From finished runs to a page, on a study too small to find anything."""

import json

import numpy as np
import pytest

from mechproc.cli.demo import tell


@pytest.fixture(scope="module")
def told(tmp_path_factory, tiny):
    out = tmp_path_factory.mktemp("demo")
    return out, tell(out, (0, 1), tiny, workers=1)


@pytest.mark.slow
def test_the_sentences_claim_nothing_that_two_seeds_cannot_carry(told):
    _, story = told
    first, second = story.sentences()
    assert "too few seeds (2 of 8)" in first
    assert "helps haystack" not in first.lower()
    assert "undecided" in second  # two seeds have no bounded interval


@pytest.mark.slow
def test_the_head_is_the_one_that_looks_most_after_training(told):
    _, story = told
    for seed, head in story.heads.items():
        named = story.looking.metadata["heads"][story.mask][str(seed)]
        assert head == named[0]
        effects = story.ablations.select(ablation="mean", seed=seed)
        of_heads = {
            p: effects.select(part=p).values.item()
            for p in effects.coordinates["part"]
            if p.count(".") == 1 and ".H" in p
        }
        assert len(of_heads) == 4
        column = list(story.heads).index(seed)
        assert story.head_effect[column] == of_heads.pop(head)
        assert story.other_heads_effect[column] == pytest.approx(np.mean(list(of_heads.values())))


@pytest.mark.slow
def test_the_page_and_the_numbers_are_written_and_agree(told):
    out, story = told
    summary = json.loads((out / "summary.json").read_text())
    page = (out / "report.html").read_text()
    assert summary["finding"] == list(story.sentences())
    assert summary["trained"] == 2 + 2 * 5
    for arm, values in summary["accuracy"].items():
        assert values == story.scores.select(arm=arm).values.tolist()
    assert "http://" not in page.split("<script")[0] and "https://" not in page.split("<script")[0]
    assert "What the donors knew" in page and "undefined" in page


@pytest.mark.slow
def test_a_second_telling_trains_nothing(told, tiny, capsys):
    out, story = told
    again = tell(out, (0, 1), tiny, workers=1)
    assert "0 trainings to do" in capsys.readouterr().out
    assert again.sentences() == story.sentences()
