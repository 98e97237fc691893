"""Inputs of the tests' networks."""

import numpy as np
import pytest


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(3, 4, 4, 4)).astype(np.float32)


@pytest.fixture
def vectors():
    return np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
