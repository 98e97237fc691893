"""What every attached NNX model must hold to, in one check."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from collab_jax import nnx as collab_nnx


class Block(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(4, 4, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)

    def __call__(self, x):
        return self.dropout(nnx.relu(self.norm(self.conv(x))))


def arrays(state):
    """A state as arrays that NumPy compares, keys included."""

    def array(leaf):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(leaf) if is_key else leaf

    return jax.tree.map(array, nnx.as_pure(state))


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def total(tree):
    """A scalar that depends on every float of a pytree."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return sum(jnp.sin(x.astype(jnp.float32)).sum() for x in floats)


def flat_gradient(state):
    """Gradients by path, such as {"blocks/0/conv/kernel": array}."""
    flat = nnx.to_flat_state(state)
    return {"/".join(map(str, path)): np.asarray(value[...]) for path, value in flat}


def gradient_function(options, selection=None, wrt=nnx.Param):
    """A jitted `(model, x, weights) -> (gradients, of_x, outputs, features, paths)`.

    Without a selection the model runs plainly; `weights[0]` is that of its outputs, the others
    those of the features.
    """

    @nnx.jit
    def gradient(model, x, weights):
        def loss(model, x):
            if selection is None:
                outputs, features, paths = model(x, **options), (), ()
            else:
                captured = collab_nnx.capture(model, x, **selection, **options)
                outputs, features, _, paths = captured
            terms = [weights[i] * total(h) for i, h in enumerate((outputs, *features))]
            return sum(terms), (outputs, features, paths)

        differentiate = nnx.grad(loss, argnums=(nnx.DiffState(0, wrt), 1), has_aux=True)
        (of_model, of_x), (outputs, features, paths) = differentiate(model, x)
        return of_model, of_x, outputs, features, paths

    return gradient


def check_attached(
    make, x, owners, *, options=None, reference=True, wrt=nnx.Param, rtol=0, **selection
):
    """Outputs, state and main gradients to the bit; local gradients where they belong.

    Args:
      make: gives the model, the same one each time.
      x: its input.
      owners: for each path of a feature the prefixes of the parameters that it may reach, and must.
      options: what the model takes by name.
      reference: whether to compare with the layer run a second time on stopped inputs.
      wrt: the variables to differentiate.
      rtol: by how much the inputs' gradients may differ.
      **selection: layers, then and feature.

    Returns:
      The features.
    """
    options = options or {}
    count = len(owners)
    first = jnp.eye(count + 1)[0]
    plain, attached = make(), make()
    of_plain, of_plain_x, outputs, *_ = gradient_function(options, wrt=wrt)(plain, x, first)
    gradient = gradient_function(options, selection, wrt)
    definition = nnx.graphdef(attached)
    of_main, of_x, *captured, features, paths = gradient(attached, x, first)
    assert nnx.graphdef(attached) == definition, "the module is left as it was"
    assert list(paths) == list(owners)
    equal(captured[0], outputs)
    nnx.pop(plain, nnx.Intermediate)  # In a plain run Flax keeps it in the module.
    equal(arrays(nnx.state(attached)), arrays(nnx.state(plain)))
    equal(flat_gradient(of_main), flat_gradient(of_plain))
    np.testing.assert_allclose(of_x, of_plain_x, rtol=rtol)
    if reference:
        twice = gradient_function(options, {**selection, "joint": False}, wrt)
    for number, (path, prefixes) in enumerate(owners.items(), start=1):
        weights = jnp.eye(count + 1)[number]
        of_model, of_x, *_ = gradient(make(), x, weights)
        assert (np.asarray(of_x) == 0).all(), path
        of_model = flat_gradient(of_model)
        index = int(path.rsplit("[", 1)[1][:-1]) if path.endswith("]") else None
        for name, value in of_model.items():
            owned = any(name == p or name.startswith(f"{p}/") for p in prefixes)
            if owned and index is not None:  # The layers of a scan are stacked.
                assert (np.delete(value, index, axis=0) == 0).all(), (path, name)
                value = value[index]
            assert (value != 0).any() == owned, (path, name)
        if reference:
            expected = flat_gradient(twice(make(), x, weights)[0])
            for name, value in of_model.items():
                np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6)
    return features
