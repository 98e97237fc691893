"""What a training run begins with."""

import jax
import numpy as np
from tiny import ALL_TERMS, tiny_config

from collab_jax.data import DataInfo
from collab_jax.training.build import create_experiment
from collab_jax.training.state import create_train_state


def test_methods_start_from_the_same_backbone():
    info = DataInfo(10, tuple("0123456789"), (8, 8, 1), (0.3,), (0.3,))
    states = []
    for method in ("baseline", ALL_TERMS):
        parts = create_experiment(tiny_config(method), info, 5)
        state = create_train_state(
            parts.model, parts.objective, parts.optimizer, info.image_shape, seed=3
        )
        states.append(state)
    jax.tree.map(np.testing.assert_array_equal, states[0].params, states[1].params)
    assert states[0].heads == {} and set(states[1].heads) == {"mid", "pull_push"}
