"""A network that knows nothing of the terms, and all four of them on it."""

import flax.linen as nn
import jax

from collab_jax.objective import Kernel, Mid, Objective, Out, PullPush

DROPOUT = {"dropout": jax.random.key(2)}


class CNN(nn.Module):
    """As Flax's own first example has it, with dropout."""

    rate: float = 0.5

    @nn.compact
    def __call__(self, x, train=False):
        for filters in (4, 8):
            x = nn.relu(nn.Conv(filters, (3, 3))(x))
            x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Dense(16)(x.reshape(x.shape[0], -1)))
        x = nn.Dropout(self.rate, deterministic=not train)(x)
        return nn.Dense(5)(x)


def kernels(params):
    return [params[f"Conv_{i}"]["kernel"] for i in (0, 1)]


ALL = (Out(), Mid(num_classes=5), PullPush(num_classes=5), Kernel(kernels=kernels))


def objective(terms=ALL, **options):
    options = {"layers": nn.Conv, "feature": lambda path, y: nn.relu(y), **options}
    return Objective(terms, options={"train": True}, **options)
