r"""The four collaborations of a single network as pure functions on arrays.

`collaborative_loss` is L_out (Eq. 1-4), `intermediate_loss` L_mid (Eq. 5-7), `pull_push_loss`
L_pull-push (Eq. 8-9) and `kernel_loss` L_kernel (Eq. 10); the others are their parts. Where an
example has a loss the result is per example, and none of them is weighted or summed here.

Everywhere `y` is an integer label per example, or a probability per example and class. Arithmetic
is in float32 at least (float64 in, float64 out), and the result has that dtype. Every function
works under `jit`, `vmap`, `scan`, `jax.checkpoint` and in reverse and forward mode to any order.
Value and gradient are finite for degenerate inputs: a constant row has no direction, so that its
similarities are zero and it gets no gradient. An integer label outside `0..classes-1` gives NaN,
since a traced value cannot raise.

Equations are those of S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks".
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Integer, ScalarLike

__all__ = [
    "collaborative_loss",
    "consensus",
    "hard_loss",
    "intermediate_loss",
    "kernel_loss",
    "pull_push_loss",
    "similarity_matrix",
    "soft_loss",
]

Representation: TypeAlias = Literal["auto", "std", "flatten"]
Center: TypeAlias = Literal["features", "batch", "none"]

# A vector with entries no further apart is constant. Derivatives are inverse to the spread, once
# for each order: first and second ones then stay within float32.
_SMALLEST_SPREAD = 1e-18


def hard_loss(
    logits: Float[Array, "*batch classes"],
    y: Integer[Array, "*batch"] | Float[Array, "*batch classes"],
    *,
    temperature: ScalarLike = 1.0,
) -> Float[Array, "*batch"]:
    r"""Cross-entropy between labels and a softened prediction, per example (Eq. 1 and 5).

    $$J_{hard}(y, z) = -\sum_k y_k \log \psi_k(z; T), \qquad \psi(z; T) = softmax(z / T)$$

    Args:
      logits: (..., classes), most often (batch, classes).
      y: integer labels (...) or probabilities (..., classes).
      temperature: T. The paper has 1 at the output (Eq. 1) and 2 at intermediate layers (Eq. 5).

    Returns:
      The loss of each example, (...).

    Raises:
      ValueError: if the shape of `y` does not match `logits`, or T is not a positive scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> logits = jnp.array([[2.0, 0.0], [0.0, 0.0]])
      >>> print(losses.hard_loss(logits, jnp.array([0, 1])).round(3))
      [0.127 0.693]

    References:
      Fang and Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 1 and 5.
    """
    logits = _as_logits(logits)
    return _cross_entropy(logits, _as_probabilities(y, logits), temperature)


def soft_loss(
    logits: Float[Array, "*batch classes"],
    targets: Float[Array, "*batch classes"],
    *,
    temperature: ScalarLike = 1.0,
) -> Float[Array, "*batch"]:
    r"""Cross-entropy between soft targets and a softened prediction, per example (Eq. 2 and 6).

    $$J_{soft}(q, z) = -\sum_k q_k \log \psi_k(z; T)$$

    No gradient is stopped and no factor of T squared applied here; the losses that call it do both.

    Args:
      logits: (..., classes), most often (batch, classes).
      targets: q, probabilities of the shape of `logits`.
      temperature: T, that of the targets.

    Returns:
      The loss of each example, (...).

    Raises:
      ValueError: if `targets` and `logits` differ in shape, or T is not a positive scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> logits = jnp.array([[2.0, 0.0]])
      >>> print(losses.soft_loss(logits, jnp.array([[0.5, 0.5]]), temperature=2.0).round(3))
      [0.813]

    References:
      Fang and Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 2 and 6.
    """
    logits = _as_logits(logits)
    if jnp.shape(targets) != logits.shape:
        raise ValueError(
            f"targets must have the shape of logits, {logits.shape}, got {jnp.shape(targets)}"
        )
    return _cross_entropy(logits, _cast(targets, logits.dtype), temperature)


def consensus(
    logits: Float[Array, "branches batch classes"],
    *,
    temperature: ScalarLike,
    stop_gradient: bool = True,
) -> Float[Array, "branches batch classes"]:
    r"""Each branch's soft targets: the softened mean of the other branches' logits (Eq. 2).

    $$q^{(h)} = \psi\Big(\frac{1}{H-1} \sum_{j \ne h} z^{(j)}; T\Big)$$

    Args:
      logits: (branches, batch, classes), with at least two branches.
      temperature: T.
      stop_gradient: False lets gradients flow through the targets.

    Returns:
      Probabilities, (branches, batch, classes).

    Raises:
      ValueError: if `logits` is not of rank three or has fewer than two branches, or T is
        not a positive scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> logits = jnp.array([[[0.0, 0.0]], [[2 * jnp.log(3.0), 0.0]]])
      >>> print(losses.consensus(logits, temperature=2.0).round(2).tolist())
      [[[0.75, 0.25]], [[0.5, 0.5]]]

    References:
      G. Song and W. Chai, "Collaborative Learning for Deep Neural Networks", 2018.
      Fang and Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 2.
    """
    logits = _as_branches(logits)
    # The sum of all branches minus one's own would cancel: with logits of 1e4 it loses the others.
    nothing = lax.full_like(logits[:1], 0)
    before = jnp.concatenate([nothing, lax.cumsum(logits[:-1], axis=0)])
    after = jnp.concatenate([lax.cumsum(logits[1:], axis=0, reverse=True), nothing])
    return _soften((before + after) / (len(logits) - 1), temperature, stop_gradient)


def collaborative_loss(
    logits: Float[Array, "branches batch classes"],
    y: Integer[Array, "batch"] | Float[Array, "batch classes"],
    *,
    temperature: ScalarLike = 2.0,
    alpha: ScalarLike = 0.5,
    scale_by_t2: bool = False,
    stop_gradient: bool = True,
) -> Float[Array, "batch"]:
    r"""L_out: several predictions learn from the labels and from one another (Eq. 3 and 4).

    $$L_{out} = \frac{1}{H} \sum_h \alpha J_{hard}(y, z^{(h)}) +
    (1 - \alpha) J_{soft}(q^{(h)}, z^{(h)})$$

    The hard part has temperature 1, the soft part T; q is `consensus(logits)`.

    Args:
      logits: (branches, batch, classes), with at least two branches.
      y: integer labels (batch) or probabilities (batch, classes), the same for all branches.
      temperature: T of the soft part.
      alpha: weight of the hard part.
      scale_by_t2: multiplies the soft part by T squared, as distillation does; the paper does not.
      stop_gradient: False lets gradients flow through the targets q.

    Returns:
      The loss of each example, averaged over branches, (batch).

    Raises:
      ValueError: if `logits` is not of rank three or has fewer than two branches, if the shape of
        `y` does not match, or T is not a positive scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> logits = jnp.array([[[0.0, 0.0]], [[2.0, 0.0]]])
      >>> print(losses.collaborative_loss(logits, jnp.array([0])).round(3))
      [0.582]

    References:
      G. Song and W. Chai, "Collaborative Learning for Deep Neural Networks", 2018.
      Fang and Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 3 and 4.
    """
    logits = _as_branches(logits)
    labels = _as_probabilities(y, logits[0])
    hard = hard_loss(logits, jnp.broadcast_to(labels, logits.shape))
    targets = consensus(logits, temperature=temperature, stop_gradient=stop_gradient)
    soft = _distillation_loss(logits, targets, temperature, scale_by_t2)
    alpha = _as_scalar(alpha, "alpha", logits.dtype)
    return jnp.mean(alpha * hard + (1 - alpha) * soft, axis=0)


def intermediate_loss(
    local_logits: Float[Array, "layers batch classes"] | Sequence[Float[Array, "batch classes"]],
    y: Integer[Array, "batch"] | Float[Array, "batch classes"],
    *,
    temperature: ScalarLike = 2.0,
    alpha: ScalarLike = 0.05,
    beta: ScalarLike = 0.05,
    output_logits: Float[Array, "batch classes"] | None = None,
    scale_by_t2: bool = False,
    stop_gradient: bool = True,
) -> Float[Array, "layers batch"]:
    r"""L_mid: each layer's local prediction learns from the labels and from all deeper layers.

    $$L_{mid}^{(i)} = \alpha J_{hard}(y, z^{(i)}; T) + \beta J_{soft}(q^{(i)}, z^{(i)}; T), \qquad
    q^{(i)} = \psi\Big(\frac{1}{N-i} \sum_{j>i} z^{(j)}; T\Big)$$

    A layer's own logits are left out of its target: Eq. 6 divides by N - i, the number of deeper
    layers. The last layer has no soft part, unless `output_logits` stands above it. Both parts
    have temperature T, as in Eq. 5 and 6.

    Args:
      local_logits: (layers, batch, classes) or a sequence of (batch, classes), in depth order.
      y: integer labels (batch) or probabilities (batch, classes).
      temperature: T of both parts.
      alpha: weight of the hard part.
      beta: weight of the soft part.
      output_logits: (batch, classes), the network's own prediction as one more, highest, view:
        it enters every layer's target and gives the last layer its soft part.
      scale_by_t2: multiplies the soft part by T squared, as distillation does; the paper does not.
      stop_gradient: False lets gradients flow through the targets q.

    Returns:
      The loss of each layer and example, (layers, batch); the paper's total sums over layers.

    Raises:
      ValueError: if there is no layer, if layers, `output_logits` and `y` do not match in shape, or
        T is not a positive scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> local_logits = [jnp.array([[0.0, 0.0]]), jnp.array([[2.0, 0.0]])]
      >>> print(losses.intermediate_loss(local_logits, jnp.array([0])).round(4))
      [[0.0693]
       [0.0157]]

    References:
      Fang and Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 5 to 7.
    """
    layers = _as_layers(local_logits)
    labels = _as_probabilities(y, layers[0])
    hard = hard_loss(layers, jnp.broadcast_to(labels, layers.shape), temperature=temperature)
    loss = _as_scalar(alpha, "alpha", layers.dtype) * hard

    views = layers
    if output_logits is not None:
        if jnp.shape(output_logits) != layers.shape[1:]:
            raise ValueError(
                f"output_logits must have the shape of one layer's logits, {layers.shape[1:]}, "
                f"got {jnp.shape(output_logits)}"
            )
        views = jnp.concatenate([layers, _cast(output_logits, layers.dtype)[None]])
    targeted = len(views) - 1
    if targeted == 0:
        return loss
    deeper = jnp.flip(1 + lax.iota(layers.dtype, targeted))[:, None, None]
    mean = lax.cumsum(views[1:], axis=0, reverse=True) / deeper
    targets = _soften(mean, temperature, stop_gradient)
    soft = _distillation_loss(layers[:targeted], targets, temperature, scale_by_t2)
    without_target = len(layers) - targeted
    soft = jnp.concatenate([soft, lax.full_like(loss[:without_target], 0)])
    return loss + _as_scalar(beta, "beta", layers.dtype) * soft


def similarity_matrix(
    x: Float[Array, "batch height width channels"] | Float[Array, "batch features"],
    *,
    representation: Representation = "auto",
    center: Center = "features",
) -> Float[Array, "batch batch"]:
    r"""S: cosine similarity of every two examples of a batch (Eq. 8).

    $$s_{ij} = \frac{\tilde z_i^\top \tilde z_j}{\|\tilde z_i\|_2 \|\tilde z_j\|_2}$$

    A map is first reduced to the (population) standard deviation of each channel over its pixels.
    A vector that is constant before centring has no direction: its row and column are zero.

    Args:
      x: maps (batch, height, width, channels) or vectors (batch, features).
      representation: of a map. "std" takes the deviation of each channel, "flatten" all values,
        "auto" the deviation where there are several channels and several pixels, and otherwise all
        values: after the deviation one grey channel or a single pixel has nothing to compare.
      center: which mean is subtracted from the vectors: "features" that of each vector's own
        entries, "batch" that of the batch, "none" nothing.

    Returns:
      Similarities within [-1, 1] up to rounding, (batch, batch).

    Raises:
      ValueError: if `x` is neither maps nor vectors, has an empty axis, or an option is unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> x = jnp.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 2.0, 1.0], [5.0, 5.0, 5.0]])
      >>> print(losses.similarity_matrix(x).round(3))
      [[ 1.  1. -1.  0.]
       [ 1.  1. -1.  0.]
       [-1. -1.  1.  0.]
       [ 0.  0.  0.  0.]]

    References:
      A. Nøkland and L. H. Eidnes, "Training Neural Networks with Local Error Signals", 2019.
      Fang and Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 8.
    """
    return _similarities(x, "x", representation, center)


def pull_push_loss(
    features: Sequence[Float[Array, "batch _ _ _"] | Float[Array, "batch _"]],
    inputs: Float[Array, "batch height width channels"] | Float[Array, "batch features"],
    y: Integer[Array, "batch"] | Float[Array, "batch classes"],
    *,
    pull: Float[Array, "layers"] | Sequence[float],
    push: Float[Array, "layers"] | Sequence[float],
    num_classes: int | None = None,
    representation: Representation = "auto",
    input_representation: Representation | None = None,
    center: Center = "features",
) -> Float[Array, "layers"]:
    r"""L_pull-push: pulls features' similarities to the labels' and pushes them off the inputs'.

    $$L_{pull-push}^{(i)} = a_i \|S(g_i(h_i)) - S(y)\|_F - b_i \|S(g_i(h_i)) - S(x)\|_F$$

    The norms are not squared. No gradient is stopped: inputs and probabilities that depend on
    parameters move them.

    Args:
      features: for each layer g_i(h_i), the features after that layer's projection, as maps
        (batch, h, w, c) or vectors (batch, d); sizes may differ between layers.
      inputs: x, the images (batch, height, width, channels), or vectors (batch, d).
      y: probabilities (batch, classes), or integer labels (batch) with `num_classes`.
      pull: a, one weight a layer; the paper's rise linearly with depth, from 0 to 1.
      push: b, one weight a layer; the paper's fall linearly with depth, from 1 to 0.
      num_classes: number of classes, needed for integer labels.
      representation: of feature maps, as in `similarity_matrix`.
      input_representation: of the inputs; None for that of the features. Nøkland and Eidnes
        flatten images of up to three channels: "flatten".
      center: as in `similarity_matrix`.

    Returns:
      The loss of each layer, (layers).

    Raises:
      ValueError: if there is no layer, if `features`, `pull` and `push` differ in length, if
        batches differ, or if `num_classes` is missing for integer labels or contradicts `y`.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> x = jnp.array([[1.0, 2.0, 4.0], [2.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
      >>> y = jnp.array([0, 1, 1])
      >>> weights = dict(pull=[0.0, 1.0], push=[1.0, 0.0])
      >>> print(losses.pull_push_loss([x, x], x, y, **weights, num_classes=3).round(2))
      [0.   1.63]

    References:
      Fang and Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 9.
    """
    layers = len(features)
    if layers == 0:
        raise ValueError("features must hold at least one layer, got an empty sequence")
    batch = jnp.shape(inputs)[:1]
    for index, feature in enumerate(features):
        if jnp.shape(feature)[:1] != batch:
            raise ValueError(
                f"features[{index}] must have the batch of inputs, {jnp.shape(inputs)}, first, "
                f"got shape {jnp.shape(feature)}"
            )
    to_input = _similarities(inputs, "inputs", input_representation or representation, center)
    labels = _as_label_vectors(y, num_classes, batch, to_input.dtype)
    to_label = _similarities(labels, "y", "flatten", center)

    own = [
        _similarities(feature, f"features[{index}]", representation, center)
        for index, feature in enumerate(features)
    ]
    label_distance = jnp.stack([_frobenius_norm(s - _cast(to_label, s.dtype)) for s in own])
    input_distance = jnp.stack([_frobenius_norm(s - _cast(to_input, s.dtype)) for s in own])
    pull = _as_layer_weights(pull, "pull", layers, label_distance.dtype)
    push = _as_layer_weights(push, "push", layers, input_distance.dtype)
    return pull * label_distance - push * input_distance


def kernel_loss(kernel: Float[Array, "height width inputs outputs"]) -> Float[Array, ""]:
    r"""L_kernel: the correlation between the filters of one convolution (Eq. 10).

    $$L_{kernel} = \|C - diag(C)\|_F, \qquad C = \frac{1}{G} \tilde W \tilde W^\top$$

    A row of W is one output filter of G = height * width * inputs weights, normalised to mean zero
    and (population) standard deviation one.

    Args:
      kernel: (height, width, inputs, outputs), as Flax stores it.

    Returns:
      The loss of the kernel, a scalar.

    Raises:
      ValueError: if `kernel` is not of rank four or has an empty axis.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> kernel = jnp.array([[1.0, 2.0, 1.0], [2.0, 4.0, 0.0], [3.0, 6.0, 1.0]])
      >>> print(losses.kernel_loss(kernel.reshape(1, 1, 3, 3)).round(3))
      1.414

    References:
      Fang and Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 10.
    """
    kernel = _as_float(kernel)
    if kernel.ndim != 4 or kernel.size == 0:
        raise ValueError(
            "kernel must be a non-empty array of shape (height, width, inputs, outputs), "
            f"got {kernel.shape}"
        )
    # A column is a filter: the kernel as stored, without a transposed copy.
    weights = kernel.reshape(-1, kernel.shape[-1])
    correlation = _cosines(weights, "features", axis=0)
    return _frobenius_norm(jnp.where(_diagonal(correlation), 0, correlation))


def _cross_entropy(logits: Array, targets: Array, temperature: ScalarLike) -> Array:
    log_prediction = jax.nn.log_softmax(logits / _as_temperature(temperature, logits.dtype))
    return -jnp.sum(targets * log_prediction, axis=-1)


def _soften(logits: Array, temperature: ScalarLike, stop_gradient: bool) -> Array:
    targets = jax.nn.softmax(logits / _as_temperature(temperature, logits.dtype))
    return lax.stop_gradient(targets) if stop_gradient else targets


def _distillation_loss(
    logits: Array, targets: Array, temperature: ScalarLike, scale_by_t2: bool
) -> Array:
    loss = soft_loss(logits, targets, temperature=temperature)
    return jnp.square(_as_temperature(temperature, loss.dtype)) * loss if scale_by_t2 else loss


def _similarities(x: Array, name: str, representation: Representation, center: Center) -> Array:
    if representation not in get_args(Representation):
        raise ValueError(
            f"representation must be one of {get_args(Representation)}, got {representation!r}"
        )
    if center not in get_args(Center):
        raise ValueError(f"center must be one of {get_args(Center)}, got {center!r}")
    x = _as_float(x)
    if x.ndim not in (2, 4) or x.size == 0:
        raise ValueError(
            f"{name} must be non-empty maps (batch, height, width, channels) or vectors "
            f"(batch, features), got shape {x.shape}"
        )
    if x.ndim == 4:
        _, height, width, channels = x.shape
        several = channels > 1 and height * width > 1
        deviation = several if representation == "auto" else representation == "std"
        relative = center == "features"
        x = _spatial_deviation(x, relative) if deviation else x.reshape(len(x), -1)
    return _cosines(x, center, axis=1)


def _cosines(vectors: Array, center: Center, axis: int) -> Array:
    """Cosines between the vectors that run along `axis` of a matrix."""
    if center != "none":
        # Taking one entry off first makes constant vectors exactly zero, however their mean is
        # rounded. It cancels in the centring, so that no gradient need pass through it.
        along = axis if center == "features" else 1 - axis
        vectors = vectors - lax.stop_gradient(lax.slice_in_dim(vectors, 0, 1, axis=along))
        if center == "batch":
            vectors = _less_mean(vectors, along)
    # Cosines do not depend on lengths, so that this scale is a constant to every derivative. It
    # keeps squares from underflow and overflow: a squared length is then zero or at least 1/2.
    largest = jnp.max(jnp.abs(lax.stop_gradient(vectors)), axis=axis, keepdims=True)
    constant = largest <= _SMALLEST_SPREAD
    vectors = vectors * jnp.where(constant, 0, 1 / jnp.where(constant, 1, largest))

    products = _gram(vectors, axis, centred=center == "features")
    diagonal = _diagonal(products)
    squared = jnp.sum(jnp.where(diagonal, products, 0), axis=1)
    constant = constant.reshape(-1)
    inverse = jnp.where(constant, 0, 1 / jnp.sqrt(jnp.where(constant, 1, squared)))
    cosines = products * inverse[:, None] * inverse[None, :]
    itself = _cast(~constant, cosines.dtype)
    return jnp.where(diagonal, itself[:, None], cosines)


def _gram(vectors: Array, axis: int, centred: bool) -> Array:
    """Inner products of the vectors that run along `axis`, each less its own mean if `centred`."""

    def products(first: Array, second: Array) -> Array:
        axes = ((axis,), (axis,))
        return jnp.tensordot(first, second, axes, precision=lax.Precision.HIGHEST)

    @jax.custom_jvp
    def gram(vectors: Array) -> Array:
        vectors = _less_mean(vectors, axis) if centred else vectors
        return products(vectors, vectors)

    @gram.defjvp
    def gram_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        # The matrix is symmetric: one product gives its tangent and, transposed, its gradient.
        # A tangent's own mean is orthogonal to centred vectors and need not be taken off.
        (vectors,), (tangent,) = primals, tangents
        half = products(tangent, _less_mean(vectors, axis) if centred else vectors)
        return gram(vectors), half + half.T

    return gram(vectors)


def _diagonal(matrix: Array) -> Array:
    return jnp.identity(len(matrix), dtype=bool)


def _less_mean(vectors: Array, axis: int) -> Array:
    return vectors - jnp.mean(vectors, axis=axis, keepdims=True)


def _spatial_deviation(maps: Array, relative: bool) -> Array:
    """Standard deviation of each channel over its pixels, with gradient zero where it is zero.

    If `relative`, less a constant of each example that is left out of the gradient too: the
    differences between channels then keep the digits that rounding a deviation takes from them.
    """

    @jax.custom_jvp
    def deviation(maps: Array) -> Array:
        pixels = _centred_pixels(maps)
        own = jnp.sqrt(jnp.mean(jnp.square(pixels), axis=(1, 2)))
        if not relative:
            return own
        # With a = own and b = typical, a - b = (a^2 - b^2) / (a + b) = mean(p^2 - b^2) / (a + b).
        typical = jnp.mean(own, axis=1, keepdims=True)
        level = typical[:, None, None, :]
        excess = jnp.mean((pixels - level) * (pixels + level), axis=(1, 2))
        return excess / jnp.where(typical == 0, 1, own + typical)

    @deviation.defjvp
    def deviation_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        (maps,), (tangent,) = primals, tangents
        size = _spatial_deviation(maps, relative=False)
        slope = jnp.mean(_centred_pixels(maps) * tangent, axis=(1, 2))
        return deviation(maps), slope / jnp.where(size == 0, 1, size)

    return deviation(maps)


def _centred_pixels(maps: Array) -> Array:
    maps = maps - maps[:, :1, :1, :]
    return maps - jnp.mean(maps, axis=(1, 2), keepdims=True)


def _frobenius_norm(matrix: Array) -> Array:
    """The norm, with gradient zero at the zero matrix."""
    squared = jnp.sum(jnp.square(matrix))
    zero = squared == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squared)))


def _cast(x: ArrayLike, dtype: DTypeLike) -> Array:
    return lax.convert_element_type(x, dtype)


def _as_float(x: Array) -> Array:
    return _cast(x, jnp.promote_types(jnp.result_type(x), jnp.float32))


def _as_scalar(value: ScalarLike, name: str, dtype: DTypeLike) -> Array:
    if jnp.shape(value) != ():
        raise ValueError(f"{name} must be a scalar, got shape {jnp.shape(value)}")
    return _cast(value, dtype)


def _as_temperature(temperature: ScalarLike, dtype: DTypeLike) -> Array:
    if isinstance(temperature, int | float) and not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    return _as_scalar(temperature, "temperature", dtype)


def _as_logits(logits: Array) -> Array:
    logits = _as_float(logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(
            f"logits must have shape (..., classes) with at least one class, got {logits.shape}"
        )
    return logits


def _as_branches(logits: Array) -> Array:
    logits = _as_float(logits)
    if logits.ndim != 3 or len(logits) < 2 or logits.shape[-1] == 0:
        raise ValueError(
            "logits must have shape (branches, batch, classes) with at least two branches and one "
            f"class, got {logits.shape}"
        )
    return logits


def _as_layers(local_logits: Array | Sequence[Array]) -> Array:
    if isinstance(local_logits, Sequence):
        if not local_logits:
            raise ValueError("local_logits must hold at least one layer, got an empty sequence")
        for index, logits in enumerate(local_logits):
            if jnp.shape(logits) != jnp.shape(local_logits[0]):
                raise ValueError(
                    f"local_logits[{index}] must have the shape of local_logits[0], "
                    f"{jnp.shape(local_logits[0])}, got {jnp.shape(logits)}"
                )
        local_logits = jnp.stack(local_logits)
    layers = _as_float(local_logits)
    if layers.ndim != 3 or len(layers) == 0 or layers.shape[-1] == 0:
        raise ValueError(
            "local_logits must have shape (layers, batch, classes), or be a sequence of "
            f"(batch, classes), with at least one layer and one class, got {layers.shape}"
        )
    return layers


def _as_probabilities(y: Array, logits: Array) -> Array:
    """Labels for `logits` as probabilities of the same shape and dtype."""
    dtype, shape = jnp.result_type(y), jnp.shape(y)
    if jnp.issubdtype(dtype, jnp.integer) and shape == logits.shape[:-1]:
        return _one_hot(y, logits.shape[-1], logits.dtype)
    if jnp.issubdtype(dtype, jnp.floating) and shape == logits.shape:
        return _cast(y, logits.dtype)
    raise ValueError(
        f"y must be integer labels of shape {logits.shape[:-1]} or probabilities of shape "
        f"{logits.shape}, got {dtype} of shape {shape}"
    )


def _as_label_vectors(
    y: Array, num_classes: int | None, batch: tuple[int, ...], result_dtype: DTypeLike
) -> Array:
    dtype, shape = jnp.result_type(y), jnp.shape(y)
    if jnp.issubdtype(dtype, jnp.integer) and shape == batch:
        if num_classes is None or num_classes < 1:
            raise ValueError(
                f"num_classes must be given, at least 1, for integer y of shape {shape}, "
                f"got {num_classes}"
            )
        return _one_hot(y, num_classes, result_dtype)
    if jnp.issubdtype(dtype, jnp.floating) and len(shape) == 2 and shape[:1] == batch:
        if num_classes not in (None, shape[1]):
            raise ValueError(
                f"num_classes must be None or {shape[1]} for probabilities y of shape {shape}, "
                f"got {num_classes}"
            )
        return _cast(y, result_dtype)
    raise ValueError(
        f"y must be integer labels of shape {batch} or probabilities of shape "
        f"({', '.join(map(str, batch))}, classes), got {dtype} of shape {shape}"
    )


def _one_hot(labels: Array, classes: int, dtype: DTypeLike) -> Array:
    known = (labels >= 0) & (labels < classes)
    return jnp.where(known[..., None], jax.nn.one_hot(labels, classes, dtype=dtype), jnp.nan)


def _as_layer_weights(
    weights: Array | Sequence[float], name: str, layers: int, dtype: DTypeLike
) -> Array:
    shape = (len(weights),) if isinstance(weights, Sequence) else jnp.shape(weights)
    if shape != (layers,):
        raise ValueError(
            f"{name} must have shape ({layers},), one weight a layer of features, got {shape}"
        )
    return _cast(jnp.stack(weights) if isinstance(weights, Sequence) else weights, dtype)
