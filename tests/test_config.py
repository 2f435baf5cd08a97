"""Configs: strict reading, one digest for what is equal, no member that passes for another."""

from __future__ import annotations

import dataclasses
import math
import tracemalloc

import numpy as np
import pytest

from analyses.sources import groups
from mechproc.errors import ConfigError
from mechproc.model.config import ModelConfig
from mechproc.model.state import tensor_shapes
from mechproc.procedures import Curriculum, Eca, KDyck, Procedure, Set, Uniform
from mechproc.runs.config import RunConfig
from mechproc.studies.registry import load


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(1, 1, 4, 5, 6, eps=1, init_std=np.float64(0.5)),
        Curriculum(2, 20, threshold=1),
        Set(Uniform(np.int64(2), 9), n_symbols=np.int32(5)),  # pyright: ignore[reportArgumentType]
        KDyck(p_open=np.float32(0.5)),  # pyright: ignore[reportArgumentType]
    ],
)
def test_a_config_that_comes_back_is_equal_and_has_its_digest(config):
    back = type(config).from_dict(config.to_dict())
    assert back == config and back.digest() == config.digest()


def test_equal_configs_have_one_digest():
    assert KDyck(p_open=1e-1).digest() == KDyck(p_open=np.float64(0.1)).digest()
    one, same, other = (ModelConfig(1, 1, 4, 5, 6, eps=eps) for eps in (1, 1.0, 2))
    assert one.digest() == same.digest() != other.digest()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Eca(number=110.5), "number = 110.5 is not allowed: int is expected"),
        (lambda: Eca(number=True), "number = True is not allowed: int is expected"),
        (lambda: Eca(number="110"), "number = '110' is not allowed: int is expected"),
        (lambda: ModelConfig(1, 1, 4, 5, 6, act_fn="gelu_nw"), "act_fn = 'gelu_nw'.*did you mean 'gelu_new'"),
        (lambda: ModelConfig(1, 1, 4, 5, 6, eps="small"), "eps = 'small' is not allowed: float is expected"),
        (lambda: Set(lengths=3), "lengths = 3 is not allowed: a table of settings is expected"),
        (lambda: Procedure.from_dict({"kind": ["set"]}), r"kind = \['set'\] is not allowed: one of"),
        (lambda: Procedure.from_dict({"kind": {}}), r"kind = \{\} is not allowed: one of"),
        (
            lambda: Procedure.from_dict({"kind": "set", "lengths": {"kind": [1]}}),
            r"lengths.kind = \[1\] is not allowed",
        ),
        (lambda: Procedure.from_dict({"kind": "k-dyck", "p_open": 10**400}), "p_open is not allowed: it is larger"),
        (lambda: Procedure.from_dict({"kind": "k-dyck", 3: 1}), "3 is not a setting"),
    ],
)
def test_what_has_another_type_is_refused(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Set(n_symbol=3), r"Set\.n_symbol is not a setting; did you mean 'n_symbols'"),
        (lambda: Set().replace(n_symbol=3), r"Set\.n_symbol is not a setting"),
        (lambda: ModelConfig(1, 1, 4, n_ctx=5), r"ModelConfig\.d_vocab is missing"),
    ],
)
def test_a_mistyped_or_missing_setting_in_python_is_named(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


def test_a_setting_at_its_default_does_not_enter_the_digest():
    assert Set().identifying() == {"kind": "set"}
    assert Set(n_symbols=21).identifying() == {"kind": "set", "n_symbols": 21}
    wide = ModelConfig(1, 2, 8, 5, 6, d_head=4, d_mlp=32)
    assert wide.identifying() == {"n_layers": 1, "n_heads": 2, "d_model": 8, "n_ctx": 5, "d_vocab": 6}
    assert "d_head" in ModelConfig(1, 3, 8, 5, 6, d_head=4).identifying()

    @dataclasses.dataclass(frozen=True)
    class More(ModelConfig):
        new: int = 3

    assert More(1, 2, 8, 5, 6).digest() == wide.digest() != More(1, 2, 8, 5, 6, new=4).digest()


def test_settings_that_follow_from_others_follow_again():
    cfg = ModelConfig(1, 2, 8, 5, 6)
    assert (cfg.replace(d_model=16).d_head, cfg.replace(d_model=16).d_mlp) == (8, 64)
    assert cfg.replace(d_model=16, d_mlp=5).d_mlp == 5
    assert ModelConfig(1, 2, 8, 5, 6, d_head=3).replace(d_model=16).d_head == 3


SHAPE = {"n_layers": 1, "n_heads": 1, "d_model": 4, "n_ctx": 50, "d_vocab": 50}
RUN = {"procedure": {"kind": "set"}, "model": SHAPE, "training": {}, "seed": 0}


def changed(**settings):
    """A run whose model, training or procedure has one other setting."""
    (part, change), *_ = settings.items()
    return RUN | {part: RUN[part] | change if isinstance(change, dict) else change}  # pyright: ignore


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        (
            changed(training={"steps": 10**15}),
            "a.training: steps = 1000000000000000 is not allowed: at most 1,000,000,000",
        ),
        (changed(training={"batch_size": 10**9}), "a.training: batch_size = 1000000000.*at most 1,000,000$"),
        (changed(training={"checkpoints_per_decade": 10**8}), "checkpoints_per_decade = 100000000.*at most 1,000$"),
        (changed(training={"checkpoints_at": [1, 10**12]}), "checkpoints_at = 1000000000000 .*at most 1,000,000,000"),
        (changed(model={"d_vocab": 10**15}), "a.model: d_vocab = 1000000000000000 is not allowed: at most 1,000,000$"),
        (changed(model={"d_mlp": 10**7}), "a.model: d_mlp = 10000000 .*at most 1,000,000$"),
        (changed(model={"n_layers": 1001}), "a.model: n_layers = 1001 is not allowed: at most 1,000$"),
        (changed(model={"d_model": 10**6}), "a.model: weights = 12000150000000 .*at most 4,000,000,000, which follow"),
        (
            changed(procedure={"kind": "set", "n_symbols": 10**12}),
            "a.procedure: n_symbols = 1000000000000 is not allowed: at most 1,000,000$",
        ),
        (
            changed(procedure={"kind": "set", "lengths": {"kind": "fixed", "length": 10**12}}),
            "a.procedure.lengths: length = 1000000000000 is not allowed: at most 1,000,000$",
        ),
        (changed(seed=2**63), "a: seed = 9223372036854775808 is not allowed: at most 9,223,372,036,854,775,807$"),
        (changed(seed=-(2**63)), "a: seed = -9223372036854775808 is not allowed"),
        (changed(seed=10**5000), "a: seed = <int too large to show>"),
        (changed(seed="7" * 10**6), f"a.seed = '{'7' * 199}... is not allowed: int is expected"),
        (changed(model={"n" * 10**6: 1}), "a.model.n{200} is not a setting .settings: n_layers"),
    ],
)
def test_sizes_have_limits_which_are_checked_before_anything_is_made(plain, said):
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match=said):
            RunConfig.from_dict(plain, where="a")
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_the_numbers_of_the_matrices_are_counted():
    for changes in ({}, {"tied_embeddings": True}, {"d_mlp": 0, "d_head": 3}, {"input": "vectors", "d_input": 7}):
        cfg = ModelConfig(3, 2, 8, 5, 6).replace(**changes)
        matrices = {n: math.prod(s) for n, s in tensor_shapes(cfg).items() if n.rpartition(".")[2].startswith("W_")}
        assert cfg.n_weights == sum(matrices.values())


def test_more_items_or_seeds_than_can_be_made_are_refused():
    with pytest.raises(ConfigError, match=r"n = 1000000000000 is not allowed: 1 to 1,000,000"):
        Set().items(10**12)
    with pytest.raises(ConfigError, match="seeds = 1000000000000 is not allowed: 1 to 10,000"):
        load("set-to-haystack", n_seeds=10**12)
    with pytest.raises(ConfigError, match=r"seeds = '0\.\.1000000000000' is not allowed: at most 10,000"):
        groups(["set:0..1000000000000"])
