"""A Linen CNN of your own gains L_out and L_mid; the lines marked NEW are all it takes.

python examples/own_linen_cnn.py
"""

import flax.linen as nn
import jax
import optax
from sklearn.datasets import load_digits

from collab_jax import linen, losses
from collab_jax.models import HierarchicalDropoutClassifier, LocalHeads


class Layer(nn.Module):
    filters: int

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(self.filters, (3, 3), use_bias=False)(x)
        return nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        for filters in (8, 16, 16):
            x = Layer(filters)(x, train)
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        classifier = HierarchicalDropoutClassifier(num_classes=10, width=64)  # NEW: was two Dense
        return classifier(x.mean(axis=(1, 2)), train=train, masks_per_layer=2 if train else 1)


def main():
    digits = load_digits()
    images, labels = (digits.images[..., None] / 8 - 1).astype("float32"), digits.target
    train, test = slice(0, 1408), slice(1408, None)

    model, heads = CNN(), LocalHeads(num_classes=10, width=16)

    @jax.jit
    def init(key):
        variables = model.init(key, images[:1])
        features = linen.capture(model, variables, images[:1], layers=Layer).features  # NEW
        return variables, heads.init(key, features)["params"]  # NEW

    variables, head_params = init(jax.random.key(0))
    params = {"model": variables["params"], "heads": head_params}
    optimizer = optax.sgd(0.1, momentum=0.9)

    @jax.jit
    def step(params, stats, state, x, y, key):
        def loss_fn(params):
            variables = {"params": params["model"], "batch_stats": stats}
            options = {"layers": Layer, "train": True, "rngs": {"dropout": key}}  # NEW: layers
            logits, features, updated, _ = linen.capture(model, variables, x, **options)  # NEW
            local_logits = heads.apply({"params": params["heads"]}, features)  # NEW
            out = losses.collaborative_loss(logits, y).mean()  # NEW: was cross-entropy
            mid = losses.intermediate_loss(local_logits, y).sum(axis=0).mean()  # NEW
            return out + mid, updated["batch_stats"]

        (loss, stats), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), stats, state, loss

    stats, state = variables["batch_stats"], optimizer.init(params)
    for epoch in range(8):
        for start in range(0, train.stop, 128):
            x, y = (array[start : start + 128] for array in (images, labels))
            key = jax.random.fold_in(jax.random.key(2), epoch * train.stop + start)
            params, stats, state, loss = step(params, stats, state, x, y, key)
        print(f"epoch {epoch + 1}: loss {loss:.3f}")
    variables = {"params": params["model"], "batch_stats": stats}
    wrong = jax.jit(model.apply)(variables, images[test]).argmax(-1) != labels[test]
    print(f"test error {100 * wrong.mean():.1f}%")


if __name__ == "__main__":
    main()
