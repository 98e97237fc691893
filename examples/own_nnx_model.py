"""An NNX model of your own gains L_pull-push and L_kernel; lines marked NEW are all it takes."""

import optax
from flax import nnx
from sklearn.datasets import load_digits

from collab_jax import losses
from collab_jax.models import Projections
from collab_jax.nnx import LOCAL_FEATURES, capture, isolate


class Layer(nnx.Module):
    def __init__(self, inputs, filters, rngs):
        self.conv = nnx.Conv(inputs, filters, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(filters, momentum=0.9, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.norm(self.conv(x)))


class CNN(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([Layer(1, 8, rngs), Layer(8, 16, rngs), Layer(16, 16, rngs)])
        self.classifier = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x, train=False):
        for layer in self.layers:
            if train:
                x, h_local = isolate(layer, x)  # NEW: was x = layer(x)
                self.sow(nnx.Intermediate, LOCAL_FEATURES, h_local)  # NEW
            else:
                x = layer(x)
            x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        return self.classifier(x.mean(axis=(1, 2)))


def loss_fn(parts, x, y):
    logits, features, *_ = capture(parts.model, x, train=True)  # NEW: was model(x)
    options = {"pull": (0.0, 0.5, 1.0), "push": (1.0, 0.5, 0.0), "num_classes": 10}
    projected = parts.projections(features)  # NEW
    pull_push = losses.pull_push_loss(projected, x, y, **options).sum()  # NEW
    kernel = losses.kernel_loss(parts.model.layers[-1].conv.kernel[...])  # NEW
    total = losses.hard_loss(logits, y).mean() + 0.01 * pull_push + 0.001 * kernel
    return total, {"pull-push": pull_push, "kernel": kernel}


@nnx.jit
def create(images):
    model = CNN(nnx.Rngs(0))
    features = capture(model, images, train=True).features
    projections = nnx.bridge.ToNNX(Projections(width=8), rngs=nnx.Rngs(1))  # NEW
    return nnx.Dict(model=model, projections=projections.lazy_init(features))


@nnx.jit
def step(parts, optimizer, x, y):
    (loss, terms), gradient = nnx.value_and_grad(loss_fn, has_aux=True)(parts, x, y)
    optimizer.update(parts, gradient)
    return loss, terms


def main():
    digits = load_digits()
    images, test = (digits.images[..., None] / 8 - 1).astype("float32"), slice(1408, None)
    parts = create(images[:128])
    optimizer = nnx.Optimizer(parts, optax.sgd(0.05, momentum=0.9), wrt=nnx.Param)
    for epoch in range(6):
        for start in range(0, test.start, 128):
            batch = slice(start, start + 128)
            loss, terms = step(parts, optimizer, images[batch], digits.target[batch])
        print(f"epoch {epoch + 1}: loss {loss:.3f}", *(f"{k} {v:.3f}" for k, v in terms.items()))
    parts.model.eval()
    predictions = nnx.jit(lambda model, x: model(x).argmax(-1))(parts.model, images[test])
    print(f"test error {100 * (predictions != digits.target[test]).mean():.1f}%")


if __name__ == "__main__":
    main()
