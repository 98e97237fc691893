"""What holds of a capture, whatever the model."""

import jax
import jax.numpy as jnp
import numpy as np

from collab_jax import linen, losses
from collab_jax.models import LocalHeads


class Case:
    """A model, its inputs and a selection of its layers."""

    def __init__(self, model, inputs, mutable=("batch_stats",), init=None, **selection):
        self.model, self.inputs, self.mutable = model, inputs, mutable
        self.selection = selection
        self.rngs = {"dropout": jax.random.key(2)}
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        first = model if init is None else init
        variables = dict(jax.jit(first.init, static_argnums=2)(keys, inputs, True))
        self.variables = {
            k: v for k, v in variables.items() if k in ("params", "batch_stats", "lora")
        }

    def plain(self, params, inputs):
        return self.model.apply(
            {**self.variables, "params": params},
            inputs,
            True,
            rngs=self.rngs,
            mutable=list(self.mutable),
        )

    def capture(self, params, inputs, **options):
        return linen.capture(
            self.model,
            {**self.variables, "params": params},
            inputs,
            True,
            rngs=self.rngs,
            mutable=self.mutable,
            **{**self.selection, **options},
        )

    def captured(self, params, inputs):
        found = self.capture(params, inputs)
        return found.outputs, found.variables

    @property
    def params(self):
        return self.variables["params"]


def total(outputs, state):
    """A number that every output and every updated variable moves."""
    leaves = [x for x in jax.tree.leaves((outputs, state)) if jnp.issubdtype(x.dtype, jnp.floating)]
    return sum((jnp.sin(x) * (x + 1)).sum() for x in leaves)


def changes_nothing(case):
    """Outputs, new variables and the gradient of both are the plain model's to the bit."""

    def run(form):
        def loss(params):
            outputs, state = form(params, case.inputs)
            return total(outputs, state), (outputs, state)

        return jax.value_and_grad(loss, has_aux=True)(case.params)

    with jax.disable_jit():
        jax.tree.map(np.testing.assert_array_equal, run(case.captured), run(case.plain))


def moved_by_each_feature(case):
    """For each path the parameters that a loss on that feature moves: their names and depths.

    The inputs must stay exactly where they are, and the gradient be that of the reference.
    """

    def gradient(joint):
        def loss(params, inputs, weights):
            features = case.capture(params, inputs, joint=joint).features
            return sum(w * (jnp.sin(h) * h).sum() for w, h in zip(weights, features, strict=True))

        return jax.jit(jax.grad(loss, argnums=(0, 1), allow_int=True))

    paths = jax.eval_shape(lambda p: case.capture(p, case.inputs), case.params).paths
    joint, reference = gradient(True), gradient(False)
    found = {}
    for path, weights in zip(paths, jnp.eye(len(paths)), strict=True):
        of_params, of_inputs = joint(case.params, case.inputs, weights)
        expected, _ = reference(case.params, case.inputs, weights)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), of_params, expected
        )
        for leaf in jax.tree.leaves(of_inputs):
            assert leaf.dtype == jax.dtypes.float0 or (np.asarray(leaf) == 0).all()
        found[path] = {
            "/".join(key.key for key in where): np.asarray(leaf)
            for where, leaf in jax.tree_util.tree_leaves_with_path(of_params)
            if (np.asarray(leaf) != 0).any()
        }
    return found


def trains(case, kernels, steps=3):
    """Steps with all four terms lower their sum; `kernels` gives those of Eq. 10."""
    labels = jnp.arange(case.inputs.shape[0]) % 3
    pixels = case.inputs.reshape(labels.shape[0], -1, 1).astype(jnp.float32)
    features = jax.eval_shape(lambda p: case.capture(p, case.inputs).features, case.params)
    heads = LocalHeads(3, width=4)
    zeros = [jnp.zeros(h.shape) for h in features]
    head_params = jax.jit(heads.init)(jax.random.key(3), zeros)["params"]
    ramp = np.linspace(0, 1, len(features))

    def loss(trainable):
        params, head_params = trainable
        found = case.capture(params, case.inputs)
        logits = found.outputs[0] if isinstance(found.outputs, tuple) else found.outputs
        out = losses.collaborative_loss(jnp.stack([logits, logits[:, ::-1]]), labels).mean()
        local = heads.apply({"params": head_params}, found.features)
        mid = losses.intermediate_loss(local, labels).sum(0).mean()
        pull_push = losses.pull_push_loss(
            [h.reshape(h.shape[0], -1) for h in found.features],
            pixels,
            labels,
            pull=ramp,
            push=1 - ramp,
            num_classes=3,
        ).sum()
        kernel = sum(losses.kernel_loss(kernel) for kernel in kernels(params))
        return out + mid + 0.01 * pull_push + 0.001 * kernel

    @jax.jit
    def step(trainable):
        value, gradient = jax.value_and_grad(loss)(trainable)
        return jax.tree.map(lambda p, g: p - 0.02 * g, trainable, gradient), value

    trainable, values = (case.params, head_params), []
    for _ in range(steps):
        trainable, value = step(trainable)
        values.append(float(value))
    assert np.isfinite(values).all()
    assert values[-1] < values[0]
