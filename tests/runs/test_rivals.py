"""Song and Chai's tree through the whole loop: trained, cut off, resumed, evaluated, loaded."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare_runs import assert_same_run
from tiny import tiny_config

import collab_jax
from collab_jax.models import create_model
from collab_jax.runs import evaluate, loop
from collab_jax.training.batches import Feed


class Crash(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("method", ["tree", "multi_instance"])
def test_several_heads_train_resume_and_leave_one_network(method, tmp_path, monkeypatch):
    config = tiny_config(method, model__name="vgg16", multi_head__heads=4)
    loop.run(config, tmp_path / "straight")
    run, dispatched = Feed.run, []

    def crash_at_seven(self, state, inputs):
        dispatched.append(1)
        if len(dispatched) == 7:
            raise Crash
        return run(self, state, inputs)

    monkeypatch.setattr(Feed, "run", crash_at_seven)
    with pytest.raises(Crash):
        loop.run(config, tmp_path / "cut")
    monkeypatch.setattr(Feed, "run", run)
    loop.run(config, tmp_path / "cut")
    assert_same_run(tmp_path / "straight", tmp_path / "cut")

    result = json.loads((tmp_path / "cut" / "result.json").read_text())
    evaluation = evaluate.run(tmp_path / "cut", checkpoint="last")
    assert evaluation["top1_error"] == result["last_test_error"]
    restored = collab_jax.load(tmp_path / "cut", "last")
    model, variables = restored.model, restored.variables
    alone = create_model(
        "vgg16",
        10,
        width=config.model.width,
        classifier_width=config.model.classifier_width,
    )
    images = jnp.zeros((2, 8, 8, 1))
    expected = jax.eval_shape(alone.init, jax.random.key(0), images)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, dict(expected))
    assert np.isfinite(model.apply(variables, images)).all()
