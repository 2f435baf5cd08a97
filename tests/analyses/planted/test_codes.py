"""Codes: known optima, orthonormal bases, turns."""

import numpy as np
import pytest

from analyses.planted.codes import arc, circle, gap, random_rotation, residual_basis, spherical_code, turn


@pytest.mark.parametrize(
    "n, dim, best", [(4, 3, 4 / 3), (6, 3, 1.0), (12, 3, 1 - 1 / np.sqrt(5)), (3, 2, 1.5), (30, 3, 0.21)]
)
def test_codes_are_near_the_best_known(n, dim, best):
    code = spherical_code(n, dim, np.random.default_rng(0))
    assert np.allclose(np.linalg.norm(code, axis=1), 1)
    assert gap(code) > 0.97 * best


def test_a_code_of_one_vector():
    assert np.linalg.norm(spherical_code(1, 3, np.random.default_rng(0))) == pytest.approx(1)


def test_circle_and_arc():
    assert np.allclose(circle(9)[:-2] @ turn(9, 2), circle(9)[2:])
    assert gap(circle(8)) == pytest.approx(1 - np.cos(np.pi / 4))
    assert (np.diff(arc(11)[:, 1]) > 0).all()


def test_bases():
    basis = residual_basis(16)
    assert np.allclose(basis @ basis.T, np.eye(16)) and np.allclose(basis[0], 0.25)
    rotation = random_rotation(7, np.random.default_rng(0))
    assert np.allclose(rotation @ rotation.T, np.eye(7))
