"""The rivals as terms: what each adds, which parameters each moves, and what stops at a layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from collab_jax import losses
from collab_jax.models import Hints, LocalHeads, Pair, Projections, spatial_dropout
from collab_jax.objective import (
    HSIC,
    Auxiliary,
    CrossEntropy,
    DeCov,
    Mid,
    Objective,
    Out,
    PredSim,
    RDrop,
    SelfDistillation,
    Term,
)

CONVOLUTIONS = ("Conv_0", "Conv_1", "Conv_2")
DROPOUT = {"dropout": jax.random.key(2)}


class CNN(nn.Module):
    rate: float = 0.5

    @nn.compact
    def __call__(self, x, train=False):
        for filters in (4, 6, 8):
            x = nn.relu(nn.Conv(filters, (3, 3))(x))
            x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.Dropout(self.rate, deterministic=not train)(x.reshape(x.shape[0], -1))
        return nn.Dense(5)(x)


@pytest.fixture(scope="module")
def variables(batch):
    return CNN().init(jax.random.key(0), batch[0])


class Run:
    """A table of terms on the network, its heads, and the gradient of its total."""

    def __init__(self, variables, batch, terms, **options):
        settings = {"layers": nn.Conv, "feature": lambda path, y: nn.relu(y), **options}
        self.table = Objective(terms, options={"train": True}, **settings)
        self.variables, self.batch = variables, batch
        key = jax.random.key(3)
        self.heads = self.table.init(key, CNN(), variables, batch[0], rngs=DROPOUT)

    def outputs(self, params=None, heads=None):
        variables = self.variables if params is None else {"params": params}
        heads = self.heads if heads is None else heads
        return self.table.forward(CNN(), variables, heads, *self.batch, rngs=DROPOUT)[0]

    def total(self, params, heads):
        return self.table(self.outputs(params, heads))[0]

    def moved(self):
        """The modules of the network and the heads that a gradient reaches."""
        gradient = jax.jit(jax.grad(self.total, argnums=(0, 1)))
        found = gradient(self.variables["params"], self.heads)
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(found))
        network, heads = (
            {name for name, tree in part.items() if any(map(jnp.any, jax.tree.leaves(tree)))}
            for part in found
        )
        return network, heads


@pytest.fixture
def run(variables, batch):
    return lambda *terms, **options: Run(variables, batch, terms, **options)


def local_logits(run, name, features, numbers):
    heads = LocalHeads(5)
    tree = run.heads[name]["heads"] if "heads" in run.heads[name] else run.heads[name]
    return heads.apply({"params": tree}, [features[i] for i in numbers])


def test_auxiliary_is_the_cross_entropy_of_classifiers_where_the_map_shrinks(run, batch):
    made = run(Auxiliary(num_classes=5))
    outputs = made.outputs()
    assert outputs.features == () and len(outputs.through) == 3
    logits = local_logits(made, "auxiliary", outputs.through, (0, 1))
    expected = sum(losses.hard_loss(z, batch[1]).mean() for z in logits)
    total, values = made.table(outputs)
    np.testing.assert_allclose(values["auxiliary"], expected, rtol=1e-6)
    np.testing.assert_allclose(total, 0.3 * expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("layers", "reached"), [((), ("Conv_0", "Conv_1")), ((0,), ("Conv_0",)), ((2,), CONVOLUTIONS)]
)
def test_auxiliary_moves_all_layers_below_its_classifiers(run, layers, reached):
    network, heads = run(Auxiliary(num_classes=5, layers=layers)).moved()
    assert network == set(reached) and heads == {"auxiliary"}


def test_the_gradient_of_auxiliary_is_that_of_the_network_cut_behind_the_layer(
    run, variables, batch
):
    made = run(Auxiliary(num_classes=5, layers=(1,), weight=1.0))

    def by_hand(params):
        x = batch[0]
        for name in ("Conv_0", "Conv_1"):
            if name == "Conv_1":
                x = nn.avg_pool(x, (2, 2), (2, 2))
            filters = params[name]["bias"].shape[0]
            x = nn.relu(nn.Conv(filters, (3, 3)).apply({"params": params[name]}, x))
        (logits,) = local_logits(made, "auxiliary", [x], (0,))
        return losses.hard_loss(logits, batch[1]).mean()

    ours = jax.jit(jax.grad(made.total))(variables["params"], made.heads)
    expected = jax.jit(jax.grad(by_hand))(variables["params"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, expected)


def test_self_distillation_learns_from_the_label_and_from_the_output(run, batch):
    made = run(SelfDistillation(num_classes=5))
    outputs = made.outputs()
    logits = local_logits(made, "self_distillation", outputs.through, (0, 1))
    teacher = jax.nn.softmax(outputs.branches[0] / 3)
    expected = 0.0
    for z in np.asarray(logits, np.float64):
        log_p = z / 3 - np.log(np.exp(z / 3).sum(-1, keepdims=True))
        hard = z - np.log(np.exp(z).sum(-1, keepdims=True))
        hard = -hard[np.arange(6), np.asarray(batch[1])]
        expected += np.mean(0.7 * hard - 0.3 * (np.asarray(teacher) * log_p).sum(-1))
    np.testing.assert_allclose(made.table(outputs)[0], expected, rtol=1e-5)
    # The teacher learns nothing: the gradient ends at the last classifier.
    assert made.moved() == ({"Conv_0", "Conv_1"}, {"self_distillation"})


def test_hints_pull_features_to_the_last_layers(run):
    made = run(SelfDistillation(num_classes=5, hint=0.5), CrossEntropy())
    plain = run(SelfDistillation(num_classes=5), CrossEntropy())
    outputs = made.outputs()
    tree = made.heads["self_distillation"]
    vectors = Hints().apply({"params": tree["second"]}, outputs.through)
    deepest = np.asarray(outputs.through[-1]).mean((1, 2))
    distance = ((np.asarray(vectors) - deepest) ** 2).sum(-1).mean(1).sum()
    heads = {"self_distillation": tree["first"]}
    without = plain.table(plain.outputs(heads=heads))[0]
    np.testing.assert_allclose(made.table(outputs)[0] - without, 0.5 * distance, rtol=1e-4)
    assert made.moved()[1] == {"self_distillation"}


def test_predsim_is_local(run, batch):
    made = run(PredSim(num_classes=5))
    outputs = made.outputs()
    heads = Pair(LocalHeads(5), Projections())
    logits, projected = heads.apply({"params": made.heads["predsim"]}, outputs.features)
    predicted = sum(losses.hard_loss(z, batch[1]).mean() for z in logits)
    similar = losses.similarity_loss(projected, batch[1], num_classes=5).sum()
    expected = 0.01 * predicted + 0.99 * similar
    np.testing.assert_allclose(made.table(outputs)[0], expected, rtol=1e-5)
    assert made.moved() == (set(CONVOLUTIONS), {"predsim"})


class OfLayer(Term):
    """The sum of one layer's feature."""

    number: int = 0

    @property
    def reads_features(self):
        return True

    def value(self, outputs):
        return outputs.features[self.number].sum()


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("local_only", [False, True])
def test_a_layers_local_loss_moves_it_alone(run, number, local_only):
    term = OfLayer(name="layer")
    object.__setattr__(term, "number", number)
    local = PredSim(num_classes=5, weight=0.0, local_only=local_only)
    assert run(term, local).moved()[0] == {CONVOLUTIONS[number]}


def test_with_local_only_the_output_moves_the_classifier_alone(run, variables):
    alone = run(CrossEntropy(), PredSim(num_classes=5, weight=0.0, local_only=True))
    assert alone.moved()[0] == {"Dense_0"}
    both = run(CrossEntropy(), PredSim(num_classes=5, local_only=True))
    assert both.moved()[0] == {*CONVOLUTIONS, "Dense_0"}
    beside = run(CrossEntropy(), PredSim(num_classes=5, weight=0.0))
    assert beside.moved()[0] == {*CONVOLUTIONS, "Dense_0"}
    np.testing.assert_array_equal(alone.outputs().logits, beside.outputs().logits)
    # What moves a layer is then its local loss to the bit, whatever the output says.
    local = run(PredSim(num_classes=5))
    of_local, of_both = (
        jax.jit(jax.grad(made.total))(variables["params"], made.heads) for made in (local, both)
    )
    for name in CONVOLUTIONS:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8),
            of_local[name],
            of_both[name],
        )


def test_nothing_passes_through_where_gradients_stop():
    for term in (Auxiliary(num_classes=5), SelfDistillation(num_classes=5), DeCov()):
        with pytest.raises(ValueError, match=f"terms: {term.name} beside one that stops"):
            Objective([term, PredSim(num_classes=5, local_only=True)], layers=nn.Conv)


@pytest.mark.parametrize("split_at", [None, "Conv_2"])
def test_r_drop_compares_two_passes(run, batch, split_at):
    made = run(CrossEntropy(), RDrop(), runs=2, split_at=split_at)
    outputs = made.outputs()
    assert outputs.branches.shape == (2, 6, 5)
    p, q = np.asarray(jax.nn.softmax(outputs.branches), np.float64)
    expected = (((p - q) * (np.log(p) - np.log(q))).sum(-1) / 2).mean()
    total, values = made.table(outputs)
    np.testing.assert_allclose(values["r_drop"], expected, rtol=1e-4)
    hard = losses.hard_loss(outputs.branches, jnp.stack([batch[1]] * 2)).mean()
    np.testing.assert_allclose(total, hard + 0.3 * expected, rtol=1e-5)
    assert made.moved()[0] == {*CONVOLUTIONS, "Dense_0"}


def test_r_drop_compares_the_branches_of_out(run):
    made = run(Out(), RDrop(), runs=3)
    values = made.table(made.outputs())[1]
    branches = made.outputs().branches
    pairs = [losses.r_drop_loss(branches[jnp.array(pair)]) for pair in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(values["r_drop"], jnp.stack(pairs).mean(), rtol=1e-4)


@pytest.mark.parametrize("weight", [1.0])
def test_hsic_is_local_and_has_no_head(run, batch, weight):
    made = run(HSIC(num_classes=5, weight=weight))
    assert made.heads == {} and made.moved() == (set(CONVOLUTIONS), set())
    outputs = made.outputs()
    expected = losses.hsic_loss(outputs.features, *batch, num_classes=5).sum()
    np.testing.assert_allclose(made.table(outputs)[0], expected, rtol=1e-5)


def test_decov_takes_the_last_features_and_moves_all_layers(run):
    made = run(DeCov(weight=1.0))
    outputs = made.outputs()
    h = np.asarray(outputs.through[-1], np.float64).mean((1, 2))
    covariance = np.cov(h, rowvar=False, bias=True)
    expected = (np.sum(covariance**2) - np.sum(np.diag(covariance) ** 2)) / 2
    np.testing.assert_allclose(made.table(outputs)[0], expected, rtol=1e-4)
    assert made.moved() == (set(CONVOLUTIONS), set())


def test_local_and_passing_terms_share_a_pass(run, variables, batch):
    both = run(Mid(num_classes=5), Auxiliary(num_classes=5))
    outputs = both.outputs()
    expected = local_logits(both, "mid", outputs.through, range(3))
    np.testing.assert_allclose(jnp.stack(outputs.readings["mid"]), expected, rtol=1e-5, atol=1e-6)
    twice = run(Mid(num_classes=5), Auxiliary(num_classes=5), runs=2).outputs()
    assert [len(x) for x in (*twice.through, *twice.readings["mid"])] == [len(batch[1])] * 6
    gradient = jax.jit(jax.grad(both.total))(variables["params"], both.heads)
    parts = [
        jax.jit(jax.grad(alone.total))(variables["params"], alone.heads)
        for alone in (run(Mid(num_classes=5)), run(Auxiliary(num_classes=5)))
    ]
    jax.tree.map(
        lambda g, a, b: np.testing.assert_allclose(g, a + b, rtol=1e-5, atol=1e-7),
        gradient,
        *parts,
    )


def test_what_drops_behind_a_layer_is_whole_in_its_feature(run, batch):
    def drop(key, x):
        return spatial_dropout(key, x, 0.5)

    for layers in ("Conv_1", nn.Conv):
        made = run(CrossEntropy(), OfLayer(name="first"), drop=drop, drop_at=layers)
        plain = run(CrossEntropy(), OfLayer(name="first"))
        outputs, whole = made.outputs(), plain.outputs()
        assert (outputs.logits != whole.logits).any()
        local, expected = outputs.features, whole.features
        np.testing.assert_array_equal(local[0], expected[0])
        first = 1 if layers == "Conv_1" else 0
        np.testing.assert_array_equal(local[first], expected[first])
        assert (local[2] != expected[2]).any()
        reading = run(CrossEntropy(), Mid(num_classes=5), drop=drop, drop_at=layers)
        assert reading.moved() == ({*CONVOLUTIONS, "Dense_0"}, {"mid"})
        expected = local_logits(reading, "mid", outputs.features, range(3))
        read = jnp.stack(reading.outputs().readings["mid"])
        np.testing.assert_allclose(read, expected, rtol=1e-5, atol=1e-6)
    without_capture = run(CrossEntropy(), drop=drop, drop_at=nn.Conv).outputs()
    np.testing.assert_array_equal(without_capture.logits, outputs.logits)


def test_a_drop_needs_a_place_that_is_there(run):
    with pytest.raises(ValueError, match="drop_at=.*matches no module"):
        run(CrossEntropy(), drop=lambda key, x: x, drop_at="Conv_7").outputs()
    with pytest.raises(ValueError, match="drop, drop_at: one given"):
        run(CrossEntropy(), drop_at="Conv_0")
