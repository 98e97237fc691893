"""The table of terms: what each adds, what it weighs, what it moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import ALL_TERMS, tiny_config

from collab_jax import linen, losses
from collab_jax.data import DataInfo
from collab_jax.objective import Objective, Outputs, Term
from collab_jax.training.build import create_experiment
from collab_jax.training.state import create_train_state

INFO = DataInfo(10, tuple("0123456789"), (8, 8, 1), (0.3,), (0.3,))


@pytest.fixture(scope="module")
def batch():
    inputs = jax.random.normal(jax.random.key(0), (6, 8, 8, 1))
    return inputs, jnp.array([0, 1, 2, 0, 1, 5])


class Three(Term):
    def value(self, outputs):
        return jnp.float32(3.0)


def start(method, **overrides):
    parts = create_experiment(tiny_config(method, **overrides), INFO, 5)
    state = create_train_state(parts.model, parts.objective, parts.optimizer, (8, 8, 1), seed=0)
    return parts, state


def total(parts, state, batch, params, heads):
    variables = {"params": params, "batch_stats": state.batch_stats}
    outputs, _ = parts.objective.forward(
        parts.model, variables, heads, *batch, rngs={"dropout": jax.random.key(1)}
    )
    return parts.objective(outputs, 0), outputs


def features_of(parts, params, batch_stats, inputs, **options):
    return linen.capture(
        parts.model,
        {"params": params, "batch_stats": batch_stats},
        inputs,
        layers=parts.objective.layers,
        rngs={"dropout": jax.random.key(1)},
        **parts.objective.options,
        **options,
    ).features


@pytest.mark.smoke
def test_the_terms_of_each_method():
    expected = {
        "baseline": ["cross_entropy"],
        "out": ["out"],
        "mid": ["cross_entropy", "mid"],
        "kernel+pull_push": ["cross_entropy", "pull_push", "kernel"],
        ALL_TERMS: ["out", "mid", "pull_push", "kernel"],
    }
    for method, names in expected.items():
        objective = create_experiment(tiny_config(method), INFO, 5).objective
        assert [term.name for term in objective.terms] == names
        assert objective.captures == bool({"mid", "pull_push"} & set(names))
        assert objective.options["masks_per_layer"] == (2 if "out" in names else 1)


@pytest.mark.slow
def test_total_is_the_weighted_sum_of_the_losses(batch):
    parts, state = start(ALL_TERMS, mid__weight=0.7, pull_push__weight=0.03, kernel__weight=0.02)
    (loss, values), outputs = jax.jit(
        lambda params, heads: total(parts, state, batch, params, heads)
    )(state.params, state.heads)
    weights = {"out": 1.0, "mid": 0.7, "pull_push": 0.03, "kernel": 0.02}
    np.testing.assert_allclose(
        loss, sum(weights[name] * values[name] for name in weights), rtol=1e-6
    )
    # The terms again, from the outputs, by the public losses.
    inputs, labels = batch
    head = {term.name: term.head for term in parts.objective.terms}
    features = features_of(parts, state.params, state.batch_stats, inputs)
    local_logits = head["mid"].apply({"params": state.heads["mid"]}, features)
    projected = head["pull_push"].apply({"params": state.heads["pull_push"]}, features)
    assert local_logits.shape == (13, 6, 10)
    ramp = np.arange(13) / 12
    expected = {
        "out": losses.collaborative_loss(outputs.logits, labels).mean(),
        "mid": losses.intermediate_loss(local_logits, labels).sum(0).mean(),
        "pull_push": losses.pull_push_loss(
            projected, inputs, labels, pull=ramp, push=1 - ramp, num_classes=10, per_example=True
        ).sum(),
        "kernel": sum(
            losses.kernel_loss(state.params[f"stage{s}"][f"layer{i}"]["conv"]["kernel"])
            for s in (4, 5)
            for i in (1, 2, 3)
        ),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(values[name], value, rtol=2e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "remat"),
    [("float32", False), ("float64", False), ("float64", True), ("bfloat16", False)],
)
def test_reading_inside_of_the_layers_changes_nothing(batch, dtype, remat):
    with jax.enable_x64(dtype == "float64"):
        check_reading(batch, dtype, remat)


def check_reading(batch, dtype, remat):
    kind = "bfloat16" if dtype == "bfloat16" else "float32"
    parts, state = start(ALL_TERMS, model__dtype=kind, model__remat=remat)
    assert parts.objective.remat == remat
    inputs, labels = batch
    params, heads, inputs = state.params, state.heads, inputs
    if dtype == "float64":
        wide = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)  # noqa: E731
        params, heads, inputs = wide((params, heads, inputs))

    def inside(params, heads):
        return total(parts, state, (inputs, labels), params, heads)[0]

    def outside(params, heads):
        (_, outputs) = total(parts, state, (inputs, labels), params, heads)
        features = features_of(parts, params, state.batch_stats, inputs, joint=False)
        return parts.objective(outputs.replace(features=features), 0)

    # Without it XLA leaves roundings to bfloat16 out where operations lie in one fusion.
    rounded = {"xla_allow_excess_precision": False}
    found, expected = (
        jax.jit(jax.value_and_grad(form, argnums=(0, 1), has_aux=True), compiler_options=rounded)(
            params, heads
        )
        for form in (inside, outside)
    )
    bound = {"float64": 1e-6, "float32": 1e-3, "bfloat16": 0.02}[dtype]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a, b, rtol=bound, atol=bound * float(jnp.abs(b).max())
        ),
        found,
        expected,
    )


@pytest.mark.slow
def test_local_terms_move_convolutions_norms_and_their_own_heads_only(batch):
    parts, state = start(ALL_TERMS)

    def weighed(params, heads, weights):
        (_, values), _ = total(parts, state, batch, params, heads)
        return jnp.vdot(weights, jnp.stack([values[n] for n in ("mid", "pull_push", "kernel")]))

    gradient = jax.jit(jax.grad(weighed, argnums=(0, 1)))
    for weights, name in zip(jnp.eye(3), ("mid", "pull_push", "kernel"), strict=True):
        of_params, of_heads = gradient(state.params, state.heads, weights)
        assert all(
            (np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(of_params["classifier"])
        )
        for head, tree in of_heads.items():
            moved = any((np.asarray(leaf) != 0).any() for leaf in jax.tree.leaves(tree))
            assert moved == (head == name)
        for stage in range(1, 6):
            for layer in of_params[f"stage{stage}"].values():
                moved = (np.asarray(layer["conv"]["kernel"]) != 0).any()
                assert moved == (name != "kernel" or stage >= 4)
                assert name != "kernel" or (np.asarray(layer["norm"]["scale"]) == 0).all()


def test_a_weight_may_be_a_schedule_of_the_step():
    objective = create_experiment(tiny_config("kernel", kernel__ramp_epochs=2.0), INFO, 5).objective
    weight = objective.terms[1].weight
    assert callable(weight)
    np.testing.assert_allclose([weight(i) for i in (0, 5, 10, 20)], [0, 0.0005, 0.001, 0.001])
    table = Objective([Three(name="a", weight=lambda step: 2.0 * step)])
    assert float(table(Outputs(jnp.zeros((2, 3)), jnp.zeros(2, int)), 4)[0]) == 24.0


def test_a_heads_start_does_not_depend_on_the_other_terms():
    _, with_all = start(ALL_TERMS)
    _, with_mid = start("mid")
    jax.tree.map(np.testing.assert_array_equal, with_all.heads["mid"], with_mid.heads["mid"])
