"""The total loss as a table of terms, for any Flax model and any training loop (Sec. III).

A method is a tuple of terms. Build it by hand, `init` its training-only parameters from a model and
a batch, and call it inside your own `value_and_grad`:

    objective = Objective((CrossEntropy(), Mid(num_classes=10)), layers=nn.Conv)
    local = objective.init(key, model, variables, images)

    def loss_fn(params, local):
        outputs, state = objective.forward(
            model, {**variables, "params": params}, local, images, labels
        )
        loss, values = objective(outputs)
        return loss, (values, state)
"""

from collab_jax.objective.outputs import Outputs
from collab_jax.objective.rivals import (
    HSIC,
    Auxiliary,
    DeCov,
    PredSim,
    RDrop,
    SelfDistillation,
)
from collab_jax.objective.table import Objective, Term
from collab_jax.objective.terms import CrossEntropy, Kernel, Mid, Out, PullPush

__all__ = [
    "HSIC",
    "Auxiliary",
    "CrossEntropy",
    "DeCov",
    "Kernel",
    "Mid",
    "Objective",
    "Out",
    "Outputs",
    "PredSim",
    "PullPush",
    "RDrop",
    "SelfDistillation",
    "Term",
]
