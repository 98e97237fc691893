"""What a config and a data set determine: the model, the objective, the optimizer."""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
import optax

from collab_jax import data
from collab_jax.config import Config, check_file
from collab_jax.data import DataInfo
from collab_jax.files.functions import is_own
from collab_jax.models import create_model
from collab_jax.models.own import create_own
from collab_jax.objective import Objective
from collab_jax.training.method import create_objective
from collab_jax.training.optimizer import create_optimizer, learning_rate_schedule
from collab_jax.training.own_model import check_own
from collab_jax.training.step import StepSettings

__all__ = [
    "Experiment",
    "create_experiment",
    "load_data",
    "network",
    "total_steps",
]


@dataclass(frozen=True)
class Experiment:
    """The parts of a run that its config and its data set determine."""

    model: nn.Module
    objective: Objective
    optimizer: optax.GradientTransformation
    settings: StepSettings


def load_data(config: Config) -> data.Dataset:
    """The config's data set; see `collab_jax.data.load`."""
    return data.load(
        config.data.name,
        data_dir=config.data.dir,
        manual_dir=config.data.manual_dir,
        test=config.data.test,
        validation=config.data.validation,
        train_examples=config.data.train_examples,
        image_size=config.data.image_size,
        seed=config.seed,
    )


def network(config: Config, num_classes: int) -> nn.Module:
    """The config's model.

    Raises:
      UserError: if it is the user's own, and its function or file is not as expected.
    """
    if is_own(config.model.name):
        check_file(config)
        return create_own(config.model.name, num_classes)
    return create_model(
        config.model.name,
        num_classes,
        width=config.model.width,
        classifier_width=config.model.classifier_width,
        dropout=config.model.dropout,
        dtype=jnp.dtype(config.model.dtype),
        norm_groups=config.model.norm_groups,
    )


def create_experiment(config: Config, info: DataInfo, steps_per_epoch: int) -> Experiment:
    """Builds what a training run needs.

    Args:
      config: a valid config.
      info: of its data set.
      steps_per_epoch: whole batches in the training split.

    Returns:
      The parts.

    Raises:
      UserError: if the network is the user's own and does not do what a run needs.
    """
    model = network(config, info.num_classes)
    objective = create_objective(config, model, info.num_classes, steps_per_epoch)
    if is_own(config.model.name):
        check_own(config, model, objective, info)
    optimizer = create_optimizer(config, steps_per_epoch)
    settings = StepSettings(
        model=model,
        objective=objective,
        optimizer=optimizer,
        learning_rate=learning_rate_schedule(config, steps_per_epoch),
        mean=jnp.array(info.mean, jnp.float32),
        std=jnp.array(info.std, jnp.float32),
        num_classes=info.num_classes,
        steps_per_epoch=steps_per_epoch,
        crop=config.data.crop,
        flip=config.data.flip,
        cutout=config.data.cutout,
        label_noise=config.data.label_noise,
        fixed_noise=config.data.label_noise_kind == "fixed",
        label_smoothing=config.data.label_smoothing,
        mixup=config.data.mixup,
        cutmix=config.data.cutmix,
        skip_nonfinite=config.nonfinite == "skip",
        micro_batches=config.micro_batches,
        remat=config.model.remat,
    )
    return Experiment(model, objective, optimizer, settings)


def total_steps(config: Config, steps_per_epoch: int) -> int:
    """The length of a run."""
    by_epochs = config.epochs * steps_per_epoch
    return min(config.steps, by_epochs) if config.steps else by_epochs
