"""Configs: strict reading, one digest for what is equal, no member that passes for another."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mechproc.errors import ConfigError
from mechproc.model.config import ModelConfig
from mechproc.procedures import Curriculum, Eca, KDyck, Procedure, Set, Uniform


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
