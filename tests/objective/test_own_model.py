"""The table of terms by hand, on a network that knows nothing of it."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_cnn import CNN, DROPOUT, objective

from collab_jax import losses
from collab_jax.objective import (
    CrossEntropy,
    Mid,
    Objective,
    Out,
    Outputs,
    PullPush,
    Term,
)


def test_three_steps_of_all_four_terms_lower_the_total(batch, variables):
    table = objective(runs=4)
    heads = table.init(jax.random.key(3), CNN(), variables, batch[0], rngs=DROPOUT)
    assert set(heads) == {"mid", "pull_push"}

    def loss_fn(trainable, key):
        params, heads = trainable
        outputs, _ = table.forward(CNN(), {"params": params}, heads, *batch, rngs={"dropout": key})
        assert outputs.branches.shape == (4, 6, 5)
        assert [x.shape for x in outputs.readings["mid"]] == [(6, 5), (6, 5)]
        return table(outputs)

    trainable = (variables["params"], heads)
    optimizer = optax.sgd(0.05)
    state = optimizer.init(trainable)
    step = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    totals = []
    for number in range(4):
        (total, values), gradients = step(trainable, jax.random.key(number))
        assert set(values) == {"out", "mid", "pull_push", "kernel"}
        weighed = values["out"] + values["mid"] + 1.28 * values["pull_push"]
        np.testing.assert_allclose(total, weighed + 1e-3 * values["kernel"], rtol=1e-6)
        assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))
        updates, state = optimizer.update(gradients, state)
        trainable = optax.apply_updates(trainable, updates)
        totals.append(float(total))
    assert totals[-1] < totals[0]


def test_local_terms_reach_their_layers_alone(batch, variables):
    table = objective((Mid(num_classes=5), PullPush(num_classes=5)))
    heads = table.init(jax.random.key(3), CNN(), variables, batch[0], rngs=DROPOUT)

    def total(params, heads):
        outputs, _ = table.forward(CNN(), {"params": params}, heads, *batch, rngs=DROPOUT)
        return table(outputs)[0]

    gradient, of_heads = jax.grad(total, argnums=(0, 1))(variables["params"], heads)
    for name, tree in gradient.items():
        moved = [bool((leaf != 0).any()) for leaf in jax.tree.leaves(tree)]
        assert moved == [name.startswith("Conv")] * 2, name
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(of_heads["mid"]))


@pytest.mark.parametrize("split_at", [None, "Conv_1", "Dense_0"])
def test_runs_are_the_network_itself_and_differ_by_their_masks(batch, variables, split_at):
    def branches(rate):
        table = objective((Out(),), runs=3, split_at=split_at)
        outputs, _ = table.forward(CNN(rate), variables, {}, *batch, rngs=DROPOUT)
        return outputs.branches

    plain = CNN().apply(variables, batch[0])
    np.testing.assert_allclose(branches(0.0), jnp.stack([plain] * 3), rtol=1e-5, atol=1e-6)
    masked = np.asarray(branches(0.5))
    assert all((masked[i] != masked[j]).any() for i, j in ((0, 1), (0, 2), (1, 2)))


def test_what_comes_before_a_split_runs_once(batch, variables):
    def convolutions(split_at):
        table = objective((Out(),), runs=3, split_at=split_at)
        jaxpr = jax.make_jaxpr(
            lambda x: table.forward(CNN(), variables, {}, x, batch[1], rngs=DROPOUT)[0].logits
        )(batch[0])
        return [
            equation.outvars[0].aval.shape[0]
            for equation in jaxpr.eqns
            if equation.primitive.name == "conv_general_dilated"
        ]

    assert convolutions(None) == [18, 18]
    assert convolutions("Conv_0") == [6, 18]
    assert convolutions("Conv_1") == [6, 6]


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("late", [False, True])
def test_a_split_may_be_at_a_layer_whose_features_are_read(batch, variables, joint, late):
    terms = (Out(), Mid(num_classes=5))
    heads = objective(terms).init(jax.random.key(3), CNN(), variables, batch[0], rngs=DROPOUT)

    def gradient(**split):
        table = objective(terms, runs=3, **split)

        def total(params):
            found, _ = table.forward(
                CNN(0.0), {"params": params}, heads, *batch, rngs=DROPOUT, joint=joint
            )
            assert found.branches.shape == (3, 6, 5)
            assert [x.shape for x in found.readings["mid"]] == [(6, 5), (6, 5)]
            return table(found)[0]

        # A program that is differentiated when it has been traced traces its layers once more.
        return jax.grad(jax.checkpoint(total) if late else total)(variables["params"])

    # Without dropout the runs are equal wherever they begin.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        gradient(split_at="Conv_1"),
        gradient(),
    )


def test_a_split_inside_of_a_layer_is_refused(batch):
    class Nested(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(5)(nn.Sequential([nn.Conv(4, (3, 3)), nn.relu])(x).mean((1, 2)))

    table = objective((Out(), Mid(num_classes=5)), runs=2, layers=nn.Sequential, split_at=nn.Conv)
    variables = Nested().init(jax.random.key(0), batch[0])
    with pytest.raises(ValueError, match=r"Conv matches Conv_0 inside of Sequential_0, a layer"):
        table.init(jax.random.key(3), Nested(), variables, batch[0])


def test_dropout_that_lies_before_the_split_alone_is_told(batch):
    class Early(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.Dense(8)(nn.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1)))
            return nn.Dense(5)(nn.relu(x))

    variables = Early().init(jax.random.key(0), batch[0])

    def branches(split_at, **options):
        table = objective((Out(),), runs=2, split_at=split_at)
        return table.forward(Early(), variables, {}, *batch, **options)[0].branches

    with pytest.raises(ValueError, match=r"Dense_0, behind .* expected a module before Dropout_0"):
        branches("Dense_0", rngs=DROPOUT)
    with pytest.raises(ValueError, match=r"Dropout_0, behind .* a module before Dropout_0"):
        branches("Dropout_0", rngs=DROPOUT)
    assert (branches(None, rngs=DROPOUT)[0] != branches(None, rngs=DROPOUT)[1]).any()
    equal = branches("Dense_0", train=False)
    np.testing.assert_array_equal(equal[0], equal[1])


@pytest.mark.parametrize("split_at", ["Conv_*", "Conv_7"])
def test_a_split_is_at_one_module(batch, variables, split_at):
    table = objective((Out(),), runs=2, split_at=split_at)
    with pytest.raises(ValueError, match=r"split_at=.* expected one module that is called once"):
        table.forward(CNN(), variables, {}, *batch, rngs=DROPOUT)


def test_logits_may_stand_among_other_outputs(batch, variables):
    class WithActivations(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            logits = CNN(0.0)(x, train)
            return logits, {"mean": x.mean()}

    nested = {"params": {"CNN_0": variables["params"]}}

    def run(model, variables, **options):
        table = objective((CrossEntropy(), PullPush(num_classes=5)), runs=2, **options)
        heads = table.init(jax.random.key(3), model, variables, batch[0])
        return table(table.forward(model, variables, heads, *batch)[0])

    found = run(WithActivations(), nested, logits=lambda outputs: outputs[0])
    jax.tree.map(np.testing.assert_array_equal, found, run(CNN(0.0), variables))
    with pytest.raises(
        ValueError, match=r"WithActivations returns \(float32\[12, 5\], \{.*logits=lambda outputs"
    ):
        run(WithActivations(), nested)


@dataclass(frozen=True, kw_only=True)
class Confidence(Term):
    name: str = "confidence"

    def value(self, outputs):
        return outputs.mean(jax.nn.softmax(outputs.branches).max(axis=-1).mean(axis=0))


def test_a_term_of_ones_own_stands_beside_the_others(batch, variables):
    table = objective((CrossEntropy(), Confidence(weight=0.3)))
    outputs, _ = table.forward(CNN(), variables, {}, *batch, rngs=DROPOUT)
    total, values = table(outputs)
    assert list(values) == ["cross_entropy", "confidence"]
    np.testing.assert_allclose(total, values["cross_entropy"] + 0.3 * values["confidence"])


def test_tokens_and_padding_count_by_their_weights():
    logits = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))  # branches, batch, tokens, classes
    labels = jnp.array([[0, 1, 2, 3], [4, 0, 1, 2], [3, 4, 0, 1]])
    padding = jnp.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
    outputs = Outputs(logits, labels, weights=padding)
    total, values = Objective([Out()])(outputs)
    each = losses.collaborative_loss(logits, labels)
    np.testing.assert_allclose(total, (each * padding).sum() / padding.sum(), rtol=1e-6)
    gradient = jax.grad(lambda x: Objective([Out()])(outputs.replace(logits=x))[0])(logits)
    assert (gradient[:, 0, 3] == 0).all() and (gradient[:, 0, 2] != 0).any()
    with pytest.raises(ValueError, match=r"weights: shape \(3,\); expected .* \(3, 4\)"):
        Objective([Out()])(outputs.replace(weights=jnp.ones(3)))


class Tagger(nn.Module):
    """A label for every token."""

    @nn.compact
    def __call__(self, numbers, train=False):
        x = nn.Embed(7, 6)(numbers)
        for _ in range(2):
            x = x + nn.relu(nn.Dense(6)(x.mean(axis=1, keepdims=True) + x))
        return nn.Dense(7)(nn.Dropout(0.5, deterministic=not train)(x))


def test_every_token_may_be_an_example():
    numbers = jax.random.randint(jax.random.key(1), (3, 4), 0, 7)
    padding = jnp.ones((3, 4)).at[1, 2:].set(0)
    variables = Tagger().init(jax.random.key(0), numbers)
    terms = (Out(), Mid(num_classes=7), PullPush(num_classes=7))
    table = objective(terms, layers=nn.Dense, feature=None, runs=2, tokens=True)
    heads = table.init(jax.random.key(3), Tagger(), variables, numbers, rngs=DROPOUT)
    assert heads["mid"]["layer1_fc"]["kernel"].shape == (64, 7)

    def run(table, labels=numbers, **options):
        return table.forward(Tagger(), variables, heads, numbers, labels, rngs=DROPOUT, **options)[
            0
        ]

    found = run(table, weights=padding)
    assert found.branches.shape == (2, 12, 7)
    assert [x.shape for x in found.readings["mid"]] == [(12, 7)] * 3
    assert found.inputs.shape == (12,) and found.weights.shape == (12,)
    total, values = table(found)
    assert np.isfinite(total)
    whole = objective((Out(),), layers=nn.Dense, runs=2)
    np.testing.assert_allclose(values["out"], whole(run(whole, weights=padding))[0], rtol=1e-6)
    with pytest.raises(ValueError, match=r"labels: shape \(3,\) .* \(batch, tokens\)"):
        run(table, jnp.zeros(3, int))
    with pytest.raises(ValueError, match=r"labels: shape \(3,\) .* \(batch, tokens\)"):
        Outputs(jnp.zeros((3, 7)), jnp.zeros(3, int)).per_token()
    with pytest.raises(ValueError, match=r"features\[0\]: shape \(3, 7\); expected \(3, 4\)"):
        Outputs(jnp.zeros((3, 4, 7)), numbers, features=(jnp.zeros((3, 7)),)).per_token()


def test_local_logits_of_examples_with_labels_of_tokens_are_told():
    numbers = jax.random.randint(jax.random.key(1), (3, 4), 0, 7)
    variables = Tagger().init(jax.random.key(0), numbers)
    table = objective((Mid(num_classes=7),), layers=nn.Dense, feature=None)
    heads = table.init(jax.random.key(3), Tagger(), variables, numbers, rngs=DROPOUT)
    outputs, _ = table.forward(Tagger(), variables, heads, numbers, numbers, rngs=DROPOUT)
    with pytest.raises(ValueError, match=r"heads of 'mid': .* \(3, 3, 7\) .*tokens=True"):
        table(outputs)


def test_labels_may_be_probabilities_and_logits_may_lack_branches():
    logits = jax.random.normal(jax.random.key(0), (3, 5))
    labels = jnp.array([0, 4, 2])
    table = Objective([CrossEntropy()])
    whole = table(Outputs(logits, labels))[0]
    np.testing.assert_allclose(table(Outputs(logits, jax.nn.one_hot(labels, 5)))[0], whole)
    np.testing.assert_allclose(table(Outputs(logits[None], labels))[0], whole)
    with pytest.raises(ValueError, match=r"logits: shape \(5,\) with labels of shape \(3,\)"):
        table(Outputs(logits[0], labels))


def test_a_table_with_one_name_twice_is_refused():
    with pytest.raises(ValueError, match="names out, out; expected each of them once"):
        Objective([Out(), Out(weight=2.0)])
    with pytest.raises(ValueError, match="runs: 1 given; expected 2 or more"):
        Objective([Out()], split_at="Dense_0")


def test_labels_of_floats_are_no_classes_and_missing_heads_are_named(batch, variables):
    logits = jnp.zeros((10, 10))
    with pytest.raises(ValueError, match=r"labels of shape \(10,\); expected .* whole numbers"):
        Objective([CrossEntropy()])(Outputs(logits, jnp.zeros(10)))
    table = objective((Mid(num_classes=5),))
    with pytest.raises(ValueError, match="heads: none given; expected those of the term 'mid'"):
        table.forward(CNN(), variables, {}, *batch, rngs=DROPOUT)
    features = (jnp.zeros((10, 4)),)
    with pytest.raises(ValueError, match="heads: none given; expected those of the term 'mid'"):
        table(Outputs(logits, jnp.zeros(10, int), features=features))
