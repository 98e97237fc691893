"""The train step: one for every method."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from collab_jax import data
from collab_jax.data.label_noise import noisy_labels
from collab_jax.models.blocks import CONVOLVED
from collab_jax.objective import Objective, Outputs
from collab_jax.objective.reading import READ
from collab_jax.training.keys import Purpose, key_for
from collab_jax.training.optimizer import steps_taken
from collab_jax.training.state import Batch, TrainState

__all__ = ["StepSettings", "count_wrong", "summarise", "train_chunk", "train_step"]


@dataclass(frozen=True, eq=False)
class StepSettings:
    """All that a step needs and that stays the same over a run.

    Attributes:
      model: the backbone and its classifier.
      objective: the total loss.
      optimizer: over the tree (params, heads).
      learning_rate: the optimizer's, as a function of its count of steps.
      mean: (C,), of the training split's pixels divided by 255.
      std: (C,), likewise.
      num_classes: m.
      steps_per_epoch: the length of an epoch.
      crop: whether images are cropped at random after padding.
      flip: whether images are flipped at random.
      cutout: side of the square that is cut out, in pixels; 0 for none.
      label_noise: the probability with which a label is replaced.
      fixed_noise: whether labels are replaced once for all epochs; False: anew in each.
      label_smoothing: the part of a label that is spread over all classes.
      mixup: a of mixup's Beta(a, a); 0 for none.
      cutmix: a of CutMix's; 0 for none.
      micro_batches: equal parts of a batch that are computed one after another; see `train_step`.
      remat: whether the backward pass computes anew what is cheap, such as batch norm, and all
        convolutions that are not our layers'.
      skip_nonfinite: whether a step whose loss or gradient is not finite leaves the parameters,
        statistics and optimizer as they were.
    """

    model: nn.Module
    objective: Objective
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    mean: Array
    std: Array
    num_classes: int
    steps_per_epoch: int
    crop: bool = True
    flip: bool = True
    cutout: int = 0
    label_noise: float = 0.0
    fixed_noise: bool = False
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    skip_nonfinite: bool = False
    micro_batches: int = 1
    remat: bool = False


def count_wrong(
    logits: Float[Array, "batch classes"], labels: Array, top: int
) -> Float[Array, " batch"]:
    """1 where the label is not among the `top` highest logits, 0 where it is.

    A class that ties with the label's counts as higher, so that constant logits are wrong.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    not_lower = (~(logits < own)).sum(axis=1)  # counts a NaN as higher, and the label itself
    return (not_lower > top).astype(jnp.float32)


def train_step(
    settings: StepSettings, state: TrainState, batch: Batch
) -> tuple[TrainState, dict[str, Array]]:
    """Augments, runs the network, and updates all parameters.

    With several micro-batches, the gradient is the mean of theirs, taken at the same parameters.
    That is the gradient of the whole batch for every term that is a mean over examples. Two things
    are not: batch norm takes the statistics of each micro-batch, and updates the running ones once
    for each; L_pull-push compares the images within each. Dropout masks differ, too. L_kernel does
    not depend on the batch and is added once.

    Where labels are smoothed or mixed, errors are counted against the heaviest class of each.

    Args:
      settings: constants of the run.
      state: before the step.
      batch: B examples.

    Returns:
      The state after the step, and the epoch's sums so far: `steps`, `skipped`, `loss`, every
      term's value and the parts of a batch that were wrong, each added up over the steps, with
      the fault's step as `fault` and this step's `learning_rate`.
    """

    with jax.named_scope("augment"):
        inputs, labels = _examples(settings, state, batch)
    trainable = (state.params, state.heads)
    (loss, values, wrong), batch_stats, gradients = _differentiate(
        settings, state, inputs, labels, _key_of_step("dropout", state)
    )
    loss, values, gradients = _add_terms_of_parameters(
        settings.objective, state, loss, values, gradients
    )
    learning_rate = jnp.asarray(settings.learning_rate(steps_taken(state.opt_state)), jnp.float32)
    with jax.named_scope("optimizer"):
        old_trainable, old_opt_state = trainable, state.opt_state
        # With a single term XLA's own order holds less, and with more of them this one.
        if len(settings.objective.terms) > 1:
            old_trainable, old_opt_state = _awaiting(
                gradients, trainable, state.opt_state, settings.optimizer
            )
        updates, opt_state = settings.optimizer.update(gradients, old_opt_state, old_trainable)
        new_trainable: Any = optax.apply_updates(old_trainable, updates)

    bad_terms = ~jnp.isfinite(jnp.stack(list(values.values())))
    bad_gradients = jnp.stack([~jnp.isfinite(g).all() for g in jax.tree.leaves(gradients)])
    bad = bad_terms.any() | bad_gradients.any()
    first = bad & (state.fault["step"] < 0)
    found = {"step": state.step, "terms": bad_terms, "gradients": bad_gradients}
    fault = {name: jnp.where(first, found[name], state.fault[name]) for name in found}

    new_sums = {"steps": 1.0, "skipped": 0.0, "loss": loss, **values, **wrong}
    updated = (*new_trainable, batch_stats, opt_state)
    if settings.skip_nonfinite:
        before = (*old_trainable, state.batch_stats, old_opt_state)
        updated = jax.tree.map(lambda old, new: jnp.where(bad, old, new), before, updated)
        new_sums = {name: jnp.where(bad, 0.0, value) for name, value in new_sums.items()}
        new_sums["skipped"] = bad.astype(jnp.float32)
    starts_epoch = state.step % settings.steps_per_epoch == 0
    sums = {
        name: (jnp.where(starts_epoch, 0.0, before) + new_sums[name]).astype(before.dtype)
        for name, before in state.sums.items()
    }
    params, heads, batch_stats, opt_state = updated
    state = TrainState(
        step=state.step + 1,
        key=state.key,
        params=params,
        heads=heads,
        batch_stats=batch_stats,
        opt_state=opt_state,
        sums=sums,
        fault=fault,
    )
    return state, {**sums, "fault": fault["step"], "learning_rate": learning_rate}


def _key_of_step(purpose: Purpose, state: TrainState) -> PRNGKeyArray:
    return jax.random.fold_in(key_for(purpose, state.key), state.step)


def _examples(settings: StepSettings, state: TrainState, batch: Batch) -> tuple[Array, Array]:
    """What the network is given, (B, H, W, C), and int (B,) labels or probabilities (B, m)."""
    images = data.augment(
        _key_of_step("augmentation", state), batch.images, crop=settings.crop, flip=settings.flip
    )
    inputs = data.normalise(images, settings.mean, settings.std)
    if settings.cutout:
        inputs = data.cutout(_key_of_step("cutout", state), inputs, settings.cutout)
    labels = batch.labels
    if settings.label_noise:
        labels = noisy_labels(
            labels,
            batch.indices,
            0 if settings.fixed_noise else state.step // settings.steps_per_epoch,
            key=key_for("label_noise", state.key),
            level=settings.label_noise,
            num_classes=settings.num_classes,
        )
    if settings.label_smoothing or settings.mixup or settings.cutmix:
        # Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", Sec. 7.
        certain = jax.nn.one_hot(labels, settings.num_classes, dtype=jnp.float32)
        labels = optax.smooth_labels(certain, settings.label_smoothing)
    if settings.mixup or settings.cutmix:
        key = _key_of_step("mix", state)
        return data.mix(key, inputs, labels, mixup=settings.mixup, cutmix=settings.cutmix)
    return inputs, labels


def _differentiate(
    settings: StepSettings, state: TrainState, inputs: Array, labels: Array, key: Array
) -> tuple[tuple[Array, dict[str, Array], dict[str, Array]], Any, Any]:
    """The loss of a pass with its terms and errors, the new statistics, and the gradients."""

    objective, _ = settings.objective.split()

    def loss_fn(trainable, batch_stats, inputs, labels, key):
        params, heads = trainable
        variables = {"params": params, "batch_stats": batch_stats}
        with jax.named_scope("trunk"):
            outputs, updated = objective.forward(
                settings.model, variables, heads, inputs, labels, rngs={"dropout": key}
            )
        total, values = objective(outputs, state.step)
        logits = outputs.branches.mean(axis=0)
        heaviest = labels if labels.ndim == 1 else labels.argmax(axis=1)
        wrong = {f"top{n}_wrong": count_wrong(logits, heaviest, n).mean() for n in (1, 5)}
        return total, (values, wrong, updated.get("batch_stats", {}))

    computed = jax.checkpoint(loss_fn, policy=_kept) if settings.remat else loss_fn
    differentiate = jax.value_and_grad(computed, has_aux=True)
    trainable, count = (state.params, state.heads), settings.micro_batches
    if count == 1:
        (loss, (values, wrong, batch_stats)), gradients = differentiate(
            trainable, state.batch_stats, inputs, labels, key
        )
        return (loss, values, wrong), batch_stats, gradients

    def add(carry: Any, part: Any) -> tuple[Any, None]:
        batch_stats, sums = carry
        (loss, (values, wrong, batch_stats)), gradients = differentiate(
            trainable, batch_stats, *part
        )
        means = jax.tree.map(lambda x: x / count, ((loss, values, wrong), gradients))
        return (batch_stats, jax.tree.map(jnp.add, sums, means)), None

    def part_of_every_device(x: Array) -> Array:
        # Every `count`-th example, so that a batch that is split over devices stays where it is.
        return jnp.moveaxis(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 1, 0)

    parts = (part_of_every_device(inputs), part_of_every_device(labels))
    parts = (*parts, jax.random.split(key, count))
    first = jax.tree.map(lambda x: x[0], parts)
    (loss, (values, wrong, _)), gradients = jax.eval_shape(
        differentiate, trainable, state.batch_stats, *first
    )
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), ((loss, values, wrong), gradients))
    (batch_stats, (figures, gradients)), _ = jax.lax.scan(add, (state.batch_stats, zeros), parts)
    return figures, batch_stats, gradients


_kept = jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.save_only_these_names(CONVOLVED, READ),
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
)


def _add_terms_of_parameters(
    objective: Objective, state: TrainState, loss: Array, values: dict[str, Array], gradients: Any
) -> tuple[Array, dict[str, Array], Any]:
    """Adds the terms that need no pass, after the backward pass has released its activations."""
    _, of_parameters = objective.split()
    if not of_parameters.terms:
        return loss, values, gradients
    of_params, of_heads = gradients
    params, of_params = jax.lax.optimization_barrier((state.params, of_params))

    def loss_fn(params: Any) -> tuple[Array, dict[str, Array]]:
        return of_parameters(Outputs.of_parameters(params), state.step)

    (more, others), added = jax.value_and_grad(loss_fn, has_aux=True)(params)
    of_params = jax.tree.map(jnp.add, of_params, added)
    values = {**values, **others}
    values = {term.name: values[term.name] for term in objective.terms}
    return loss + more, values, (of_params, of_heads)


def _awaiting(
    gradients: Any, trainable: Any, opt_state: Any, optimizer: optax.GradientTransformation
) -> tuple[Any, Any]:
    """Parameters and an optimizer's state, each array of which is there once its gradient is.

    Otherwise a GPU's program keeps copies of kernels and of their moments, in the layout that
    convolutions have, until the update.
    """

    def await_gradient(array: Any, gradient: Any) -> Any:
        if isinstance(array, optax.MaskedNode):
            return array
        return jax.lax.optimization_barrier((array, gradient))[0]

    return (
        jax.tree.map(await_gradient, trainable, gradients),
        optax.tree_utils.tree_map_params(
            optimizer,
            await_gradient,
            opt_state,
            gradients,
            is_leaf=lambda node: isinstance(node, optax.MaskedNode),
        ),
    )


def train_chunk(
    step: Callable[[TrainState, Any], tuple[TrainState, dict[str, Array]]],
    state: TrainState,
    batches: Any,
) -> tuple[TrainState, dict[str, Array]]:
    """Runs several steps as one program, for accelerators that outrun the host.

    Args:
      step: `train_step` with its settings.
      state: before the first step.
      batches: what `step` takes, stacked along a new first axis.

    Returns:
      The state after the last step and its report.
    """
    state, reports = jax.lax.scan(step, state, batches)
    return state, jax.tree.map(lambda values: values[-1], reports)


def summarise(sums: dict[str, Any]) -> dict[str, float | None]:
    """Turns a train step's sums over an epoch into means, and wrong parts into errors in %.

    None stands for all of them where no step counted, as every one was skipped.
    """
    steps = float(sums["steps"])
    means = {
        name: float(value) / steps if steps else None
        for name, value in sums.items()
        if name not in ("steps", "skipped", "fault", "learning_rate")
    }
    for top in ("top1", "top5"):
        wrong = means.pop(f"{top}_wrong")
        means[f"{top}_error"] = None if wrong is None else 100.0 * wrong
    rate = {"learning_rate": float(sums["learning_rate"])}
    return {**means, **rate, "skipped_steps": int(sums["skipped"])}
