"""Two NNX models that know nothing of collaborations train with all four of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from nnx_checks import check_attached

from collab_jax import losses
from collab_jax import nnx as collab_nnx


class Residual(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(4, 4, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)

    def __call__(self, x, train):
        return nnx.relu(x + self.norm(self.conv(x), use_running_average=not train))


class ConvNet(nnx.Module):
    """Layers in a list, dropout by a stream of the caller's."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.stages = nnx.List([Residual(rngs) for _ in range(2)])
        self.dropout = nnx.Dropout(0.5)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x, train, rngs):
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x, train)
        x = x.mean((1, 2))
        # Hierarchical predictions of this model's own: two masks.
        return jnp.stack(
            [self.head(self.dropout(x, deterministic=not train, rngs=rngs)) for _ in range(2)]
        )


class Mixer(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x):
        return x + self.dropout(jnp.tanh(self.linear(x))), None


class Scanned(nnx.Module):
    """Layers in a scan, each with a dropout stream of its own."""

    def __init__(self, rngs):
        self.stem = nnx.Linear(1, 4, rngs=rngs)
        make = nnx.split_rngs(splits=3)(nnx.vmap(Mixer, in_axes=0, out_axes=0))
        self.blocks = make(rngs.fork())
        self.head = nnx.Linear(4, 3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, train, rngs):
        x = self.stem(x.mean(2))
        run = nnx.scan(lambda block, x: block(x), in_axes=(0, nnx.Carry), out_axes=(nnx.Carry, 0))
        x, _ = run(self.blocks, x)
        x = x.mean(1)
        return jnp.stack([self.head(self.dropout(x, rngs=rngs)) for _ in range(2)])


CASES = {
    "list": (ConvNet, {"layers": Residual}, [f"stages/{i}" for i in (0, 1)]),
    "scan": (
        Scanned,
        {"layers": "blocks", "feature": lambda path, output: output[0]},
        [f"blocks[{i}]" for i in range(3)],
    ),
}


@pytest.fixture
def batch():
    generator = np.random.default_rng(0)
    images = generator.normal(size=(6, 4, 4, 1)).astype(np.float32)
    return images, np.arange(6) % 3


class WithRngs(nnx.Module):
    """The model and the caller's stream as one, for the check."""

    def __init__(self, model):
        self.model, self.rngs = model, nnx.Rngs(dropout=7)

    def __call__(self, x):
        return self.model(x, True, self.rngs)


@pytest.mark.parametrize("name", CASES)
def test_nothing_but_the_local_gradients_is_added(batch, name):
    kind, selection, paths = CASES[name]
    owners = {f"model/{path}": [f"model/{path.partition('[')[0]}"] for path in paths}
    if "blocks" in str(selection["layers"]):
        selection = {**selection, "layers": "model/blocks"}
    check_attached(lambda: WithRngs(kind(nnx.Rngs(0))), batch[0], owners, **selection)


@pytest.mark.parametrize("name", CASES)
def test_three_steps_with_all_four_terms(batch, name):
    kind, selection, paths = CASES[name]
    images, labels = batch
    count = len(paths)

    class Parts(nnx.Module):
        """The model, and a linear head and a projection for each of its layers."""

        def __init__(self):
            rngs = nnx.Rngs(0)
            self.model = kind(rngs)
            self.heads = nnx.Param(rngs.params.normal((count, 4, 3)))
            self.projections = nnx.Param(rngs.params.normal((count, 4, 4)))

    parts, rngs = Parts(), nnx.Rngs(dropout=1)
    optimizer = nnx.Optimizer(parts, optax.sgd(0.05, momentum=0.9), wrt=nnx.Param)

    @nnx.jit
    def step(parts, optimizer, rngs, x, y):
        def loss(parts, rngs):
            logits, features, *_ = collab_nnx.capture(parts.model, x, True, rngs, **selection)
            pooled = jnp.stack([h.reshape(h.shape[0], -1, 4).mean(1) for h in features])
            mid = losses.intermediate_loss(pooled @ parts.heads[...], y)
            projected = [h @ g for h, g in zip(features, parts.projections[...], strict=True)]
            pull = tuple(np.linspace(0, 1, count).tolist())
            pull_push = losses.pull_push_loss(
                projected, x, y, pull=pull, push=pull[::-1], num_classes=3
            )
            kernel = losses.kernel_loss(parts.model.head.kernel[...].reshape(1, 1, 4, 3))
            terms = {
                "out": losses.collaborative_loss(logits, y).mean(),
                "mid": mid.sum(0).mean(),
                "pull_push": pull_push.sum() / len(y),
                "kernel": kernel.sum(),
            }
            return sum(terms.values()), terms

        gradient, terms = nnx.grad(loss, has_aux=True)(parts, rngs)
        optimizer.update(parts, gradient)
        return terms

    before = jax.tree.map(np.asarray, nnx.as_pure(nnx.state(parts, nnx.Param)))
    history = [step(parts, optimizer, rngs, images, labels) for _ in range(3)]
    assert all(np.isfinite(value) for terms in history for value in terms.values())
    assert set(history[0]) == {"out", "mid", "pull_push", "kernel"}
    after = nnx.as_pure(nnx.state(parts, nnx.Param))
    changed = jax.tree.map(lambda a, b: (a != np.asarray(b)).any(), before, after)
    assert all(jax.tree.leaves(changed))


def stepping(optimizer_of, put=lambda state: state, **jit):
    """A model's state before and after two steps on its outputs and a feature."""
    images = np.random.default_rng(0).normal(size=(8, 4, 4, 1)).astype(np.float32)
    model = ConvNet(nnx.Rngs(0))
    nnx.update(model, put(nnx.state(model)))
    optimizer = optimizer_of(model)
    before = jax.tree.map(np.array, nnx.as_pure(nnx.state(model)))

    @functools.partial(nnx.jit, **jit)
    def step(model, optimizer, rngs, images):
        def loss(model, rngs):
            found = collab_nnx.capture(model, images, True, rngs, layers=Residual)
            return (found.outputs**2).mean() + sum((h**2).mean() for h in found.features)

        optimizer.update(model, nnx.grad(loss)(model, rngs))

    rngs = nnx.Rngs(dropout=1)
    for _ in range(2):
        given = jax.tree.leaves(nnx.state(model, nnx.Param))
        step(model, optimizer, rngs, put(images))
    return before, nnx.as_pure(nnx.state(model)), given


def sgd(model):
    return nnx.Optimizer(model, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)


def test_sharded_and_donated_state():
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))

    def put(tree):
        def on_devices(x):
            last = "data" if x.shape[-1:] == (4,) else None
            spec = ["data"] if x.ndim == 4 and len(x) == 8 else [None] * (x.ndim - 1) + [last]
            return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec[: x.ndim])))

        return jax.tree.map(on_devices, tree)

    _, plain, _ = stepping(sgd)
    _, sharded, given = stepping(sgd, put, donate_argnames=("model", "optimizer"))
    assert all(leaf.is_deleted() for leaf in given)
    assert len(sharded["stages"][0]["conv"]["kernel"].sharding.device_set) == len(mesh.devices)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5), plain, sharded)


def test_an_optimizer_that_freezes_a_part():
    def frozen_stem(model):
        def label(path, _):
            return "frozen" if path[0] in ("stem", "head") else "moved"

        transforms = {"moved": optax.sgd(0.1), "frozen": optax.set_to_zero()}
        labels = lambda params: nnx.map_state(label, params)  # noqa: E731
        return nnx.Optimizer(model, optax.multi_transform(transforms, labels), wrt=nnx.Param)

    before, after, _ = stepping(frozen_stem)
    moved = jax.tree.map(lambda a, b: bool((a != np.asarray(b)).any()), before, after)
    assert not any(jax.tree.leaves((moved["stem"], moved["head"])))
    assert all(jax.tree.leaves(moved["stages"]))
