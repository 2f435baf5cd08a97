from __future__ import annotations

import numpy as np
import pytest

from analyses import attention
from analyses.models import untrained
from mechproc.errors import ConfigError
from mechproc.model.config import ModelConfig
from mechproc.procedures.haystack import Haystack
from mechproc.procedures.lengths import Uniform

from ..conftest import planted

TASK = Haystack(lengths=Uniform(1, 2), n_keys=6, n_values=8)
OF_TASK = ModelConfig(n_layers=1, n_heads=2, d_model=8, n_ctx=TASK.n_ctx, d_vocab=TASK.d_vocab)


def test_groups_are_compared_by_rank_within_each_model():
    groups = {"untrained": untrained(planted().cfg, 2), "pretrained": {0: planted(0), 1: planted(1)}}
    result = attention.compare(groups)
    assert result.axes == ("mask", "group", "rank", "seed")
    best = result.select(mask="previous_token_head", rank=1)
    assert best.select(group="pretrained").values == pytest.approx([1.0, 1.0])
    assert (best.select(group="untrained").values < 0.5).all()
    above = result.metadata["above"]["previous_token_head"]
    assert above["pretrained"] == {"above": 2, "of": 2} and above["untrained"]["above"] == 0
    assert any(warning.startswith("untrained: ") for warning in result.warnings)


def test_a_group_of_another_rule_and_other_seeds():
    groups = {"pretrained": {1: planted(0)}, "after the task": {0: untrained(OF_TASK, 1)[0]}}
    result = attention.compare(groups, {"after the task": TASK}, ["answer", "previous_token_head"], n_items=10)
    answer = result.select(mask="answer")
    assert answer.is_undefined[0].all() and not answer.is_undefined[1].any()
    assert np.isfinite(answer.select(group="after the task", seed=0).values).all()
    both = result.select(mask="previous_token_head", group="pretrained")
    assert both.select(seed=0).is_missing.all() and both.select(seed=1, rank=1).values == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": {}}, "models = "),
        ({"rules": {"befor": TASK}}, "rules: 'befor' is not one of before, after"),
        ({"targets": ["previous"]}, "targets: 'previous' is not one of"),
        ({"models": {"before": [planted()], "after": untrained(ModelConfig(1, 1, 4, 6, 5), 1)}}, "heads of after"),
    ],
)
def test_what_cannot_be(arguments, message):
    groups = {"before": [planted(0)], "after": [planted(1)]}
    with pytest.raises(ConfigError, match=message):
        attention.compare(**{"models": groups, **arguments})
