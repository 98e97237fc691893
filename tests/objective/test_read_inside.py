"""Terms and heads of one's own, read inside of the layers or given their features whole."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cnn import CNN, DROPOUT, objective

from collab_jax import losses
from collab_jax.models import ByLayer, LocalHeads
from collab_jax.objective import Mid, Objective, Term


class Halved(LocalHeads):
    """Changes all logits behind the heads."""

    def __call__(self, features):
        return super().__call__(features) / 2


class HalvedOnce(Halved):
    """Names what each layer's head gives, and changes nothing more."""

    def of_layer(self, index, feature):
        return super().of_layer(index, feature)


class Doubled(LocalHeads):
    """Changes what each layer's head gives."""

    def of_layer(self, index, feature):
        return super().of_layer(index, feature) * 2


@pytest.mark.parametrize(
    ("heads", "read_inside"), [(Halved, False), (HalvedOnce, False), (Doubled, True)]
)
def test_what_a_subclass_changes_of_heads_holds_where_they_are_read(
    batch, variables, heads, read_inside
):
    values = {}
    for kind in (LocalHeads, heads):
        table = objective((Mid(num_classes=5, heads=kind(5, parent=None)),))
        params = table.init(jax.random.key(3), CNN(), variables, batch[0], rngs=DROPOUT)
        found, _ = table.forward(CNN(), variables, params, *batch, rngs=DROPOUT)
        assert bool(found.readings) == (not found.features)
        values[kind] = table(found)[1]["mid"]
    assert bool(found.readings) == read_inside
    logits = (
        jnp.stack(found.readings["mid"])
        if read_inside
        else heads(5).apply({"params": params["mid"]}, found.features)
    )
    expected = losses.intermediate_loss(logits, batch[1]).sum(0).mean()
    np.testing.assert_allclose(values[heads], expected, rtol=1e-6)
    assert abs(values[heads] - values[LocalHeads]) > 1e-3


class Energy(Term):
    """A term of one's own that needs one number of each layer, and no head."""

    reads_features = by_layer = True

    def of_layer(self, head, index, feature):
        assert head is None
        return (index + 1) * (feature**2).mean()

    def value(self, outputs):
        return sum(outputs.of_layers(self))


class Forgetful(Energy):
    """One that does not ask for features."""

    reads_features = False


class Whole(Term):
    """One that reads features whole."""

    reads_features = True

    def value(self, outputs):
        return sum((index + 1) * (x**2).mean() for index, x in enumerate(outputs.features))


class Undeclared(Term):
    """One that does not say what it reads."""

    def value(self, outputs):
        return sum((x**2).mean() for x in outputs.features)


class Extended(Mid):
    """Adds to a term what it reads of features."""

    def value(self, outputs):
        return super().value(outputs) + sum((x**2).mean() for x in outputs.features)


class Narrow(Mid):
    """Makes heads of its own wherever they are asked for."""

    @property
    def head(self):
        return LocalHeads(self.num_classes, width=8)


class SetupLayer(nn.Module):
    """A layer whose modules are made in `setup`, where no others may be made in a call."""

    def setup(self):
        self.dense = nn.Dense(6)

    def __call__(self, x):
        return nn.tanh(self.dense(x))


def run(terms, model, variables, batch, *, layers=nn.Conv):
    """The outputs, and the gradient by parameters and heads."""
    table = Objective(terms, layers=layers, options={"train": True} if layers is nn.Conv else {})
    heads = table.init(jax.random.key(3), model, variables, batch[0], rngs=DROPOUT)

    def loss_fn(params, heads):
        outputs, _ = table.forward(model, {"params": params}, heads, *batch, rngs=DROPOUT)
        return table(outputs)[0], outputs

    gradient, outputs = jax.grad(loss_fn, (0, 1), has_aux=True)(variables["params"], heads)
    return table, outputs, gradient


def test_a_term_of_ones_own_is_read_inside_of_layers_or_gets_them_whole(batch, variables):
    found = []
    for terms, read_inside in (
        ([Energy(name="a")], True),
        ([Energy(name="a"), Mid(num_classes=5, weight=0.0)], True),
        ([Whole(name="a"), Mid(num_classes=5, weight=0.0)], False),
        ([Energy(name="a"), Whole(name="b", weight=0.0)], False),
    ):
        table, outputs, (gradient, _) = run(terms, CNN(), variables, batch)
        assert bool(outputs.readings) == read_inside
        found.append((table(outputs)[1]["a"], gradient))
    for value, gradient in found[1:]:
        np.testing.assert_allclose(value, found[0][0], rtol=1e-6)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient, found[0][1]
        )
    assert np.abs(found[0][1]["Conv_0"]["kernel"]).max() > 1e-4


def test_what_a_term_adds_to_mid_is_not_lost(batch, variables):
    table, outputs, _ = run([Extended(num_classes=5)], CNN(), variables, batch)
    plain, its, _ = run([Mid(num_classes=5)], CNN(), variables, batch)
    added = sum((x**2).mean() for x in outputs.features)
    np.testing.assert_allclose(table(outputs)[1]["mid"], plain(its)[1]["mid"] + added, rtol=1e-5)


class OfLayer(Mid):
    """Reads other logits of each layer, and adds to their loss."""

    def of_layer(self, head, index, feature):
        return 3 * super().of_layer(head, index, feature)

    def value(self, outputs):
        return super().value(outputs) + 1


def test_what_a_term_reads_of_layers_holds_where_it_changes_more(batch, variables):
    for heads in (None, Linear()):
        options = {"num_classes": 5, "heads": heads}
        table, outputs, _ = run([OfLayer(**options)], CNN(), variables, batch)
        plain, read, _ = run([Mid(**options)], CNN(), variables, batch)
        logits = 3 * jnp.stack(read.readings["mid"])
        expected = losses.intermediate_loss(logits, batch[1]).sum(0).mean() + 1
        np.testing.assert_allclose(table(outputs)[1]["mid"], expected, rtol=1e-5)


def test_a_term_that_forgets_to_ask_for_features_is_told(batch, variables):
    with pytest.raises(ValueError, match="'a' reads layers; expected reads_features = True"):
        run([Forgetful(name="a"), Mid(num_classes=5)], CNN(), variables, batch)


def test_features_that_were_read_inside_of_their_layers_are_not_taken_for_none(batch, variables):
    with pytest.raises(ValueError, match="outputs.features: every term read its layers inside"):
        run([Undeclared(name="a"), Mid(num_classes=5)], CNN(), variables, batch)


def test_features_that_are_given_go_before_readings(batch, variables):
    table, outputs, _ = run([Mid(num_classes=5)], CNN(), variables, batch)
    whole, found, _ = run([Mid(num_classes=5), Whole(name="a")], CNN(), variables, batch)
    assert not outputs.features and len(found.features) == 2
    again = table(outputs.replace(features=found.features))[1]["mid"]
    np.testing.assert_allclose(again, table(outputs)[1]["mid"], rtol=1e-6)
    other = tuple(x + 1 for x in found.features)
    assert abs(table(outputs.replace(features=other))[1]["mid"] - again) > 1e-4
    with pytest.raises(ValueError, match="features must hold at least one layer"):
        table(found.replace(features=()))


def test_heads_may_be_made_where_a_layer_makes_none(batch):
    model = nn.Sequential([SetupLayer(), SetupLayer(), nn.Dense(5)])
    flat = (batch[0].reshape(len(batch[0]), -1), batch[1])
    variables = model.init(jax.random.key(0), flat[0])
    _, outputs, (_, heads) = run([Narrow(num_classes=5)], model, variables, flat, layers=SetupLayer)
    assert [x.shape for x in outputs.readings["mid"]] == [(len(flat[0]), 5)] * 2
    assert np.abs(heads["mid"]["layer2_fc"]["kernel"]).max() > 0


class Linear(ByLayer):
    """Heads of one's own, each a fully connected layer."""

    prefix: str = "layer"

    @nn.compact
    def of_layer(self, index, feature):
        return nn.Dense(5, name=f"{self.prefix}{index + 1}")(feature.mean((1, 2)))


def test_heads_of_ones_own_are_read_by_layer(batch, variables):
    _, outputs, (_, heads) = run([Mid(num_classes=5, heads=Linear())], CNN(), variables, batch)
    assert [x.shape for x in outputs.readings["mid"]] == [(len(batch[0]), 5)] * 2
    assert set(heads["mid"]) == {"layer1", "layer2"}
    with pytest.raises(ValueError, match="'head1' of heads that are ByLayer: expected names"):
        run([Mid(num_classes=5, heads=Linear(prefix="head"))], CNN(), variables, batch)
