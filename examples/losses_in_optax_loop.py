"""The losses alone in an optax loop of plain JAX: L_out from four dropout masks, and L_kernel.

python examples/losses_in_optax_loop.py
"""

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from collab_jax import losses

FILTERS, BRANCHES, DROPOUT = 16, 4, 0.5


def init(key):
    keys = jax.random.split(key, 2)
    return {
        "kernel": jax.random.normal(keys[0], (3, 3, 1, FILTERS)) / 3,
        "weights": jax.random.normal(keys[1], (36 * FILTERS, 10)) / 24,
        "bias": jnp.zeros(10),
    }


def features(params, images):
    dimensions = ("NHWC", "HWIO", "NHWC")
    h = jax.lax.conv_general_dilated(
        images, params["kernel"], (1, 1), "VALID", dimension_numbers=dimensions
    )
    return jax.nn.relu(h).reshape(len(images), -1)


def classify(params, h):
    return h @ params["weights"] + params["bias"][None]


def loss_fn(params, images, labels, key):
    h = features(params, images)
    masks = jax.random.bernoulli(key, 1 - DROPOUT, (BRANCHES, *h.shape)) / (1 - DROPOUT)
    logits = jax.vmap(lambda mask: classify(params, h * mask))(masks)
    out = losses.collaborative_loss(logits, labels, temperature=2.0, alpha=0.5).mean()
    kernel = losses.kernel_loss(params["kernel"])
    return out + 0.01 * kernel, {"out": out, "kernel": kernel}


def main():
    digits = load_digits()
    images = (digits.images[..., None] / 16).astype("float32")
    labels = digits.target
    optimizer = optax.adam(0.01)
    params = init(jax.random.key(0))
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, images, labels, key):
        (_, terms), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
            params, images, labels, key
        )
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, terms

    keys = jax.random.split(jax.random.key(1), 120)
    for number, key in enumerate(keys):
        start = number % 11 * 128
        batch = slice(start, start + 128)
        params, state, terms = step(params, state, images[batch], labels[batch], key)
        if number % 30 == 0 or number == len(keys) - 1:
            values = "  ".join(f"L_{name} {value:.3f}" for name, value in terms.items())
            print(f"step {number + 1}: {values}")
    logits = classify(params, features(params, images[1408:]))
    print(f"test error {100 * (logits.argmax(-1) != labels[1408:]).mean():.1f}%")


if __name__ == "__main__":
    main()
