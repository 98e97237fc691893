r"""The four collaborations of a single network as pure functions on arrays.

`collaborative_loss` is L_out (Eq. 1-4), `intermediate_loss` L_mid (Eq. 5-7), `pull_push_loss`
L_pull-push (Eq. 8-9) and `kernel_loss` L_kernel (Eq. 10). Beside them stand losses of their
neighbours: `r_drop_loss`, `similarity_loss` (local error signals), `hsic_loss` and `decov_loss`.
The others are parts of these. Where an example has a loss the result is per example, and none of
them is weighted or summed here.

Everywhere `y` is an integer label per example, or a probability per example and class. Arithmetic
is in float32 at least (float64 in, float64 out), and the result has that dtype. Every function
works under `jit`, `vmap`, `scan`, `jax.checkpoint` and in reverse and forward mode to any order.
Value and gradient are finite for degenerate inputs: a constant row has no direction, so that its
similarities are zero and it gets no gradient. A class whose logit is -inf has probability zero and
gets no gradient; only a target that expects it costs infinity, unless all classes are at
-inf: such an example costs nothing. An integer label outside `0..classes-1` gives NaN, since a
traced value cannot raise.

Equations without another source are those of S. Fang and T. Lin, "Intra-Model Collaborative
Learning of Neural Networks".
"""

from collab_jax.losses.collaborative import collaborative_loss, consensus
from collab_jax.losses.cross_entropy import hard_loss, soft_loss
from collab_jax.losses.decov import decov_loss
from collab_jax.losses.hsic import hsic_loss
from collab_jax.losses.intermediate import intermediate_loss
from collab_jax.losses.kernel import kernel_loss
from collab_jax.losses.predsim import similarity_loss
from collab_jax.losses.pull_push import pull_push_loss
from collab_jax.losses.r_drop import r_drop_loss
from collab_jax.losses.similarity import similarity_matrix

__all__ = [
    "collaborative_loss",
    "consensus",
    "decov_loss",
    "hard_loss",
    "hsic_loss",
    "intermediate_loss",
    "kernel_loss",
    "pull_push_loss",
    "r_drop_loss",
    "similarity_loss",
    "similarity_matrix",
    "soft_loss",
]
