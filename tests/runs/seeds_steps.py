"""Steps of several seeds in one program, and of each alone; writes what came of them.

python seeds_steps.py OUT DTYPE STEPS SEED,SEED...
"""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
from tiny import ALL_TERMS, tiny_config

from collab_jax import data
from collab_jax.data import DataInfo
from collab_jax.runs.seeds import SeedsStep
from collab_jax.training.batches import Feed
from collab_jax.training.build import create_experiment
from collab_jax.training.placement import Placement
from collab_jax.training.state import create_train_state

_, out, dtype, steps, seeds = sys.argv
jax.config.update("jax_enable_x64", dtype == "float64")
placement = Placement()
states, feeds, settings = [], [], []
for seed in map(int, seeds.split(",")):
    config = tiny_config(ALL_TERMS, seed=seed)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype=dtype))
    # Which examples there are, and so their mean, depends on the seed as well.
    digits = data.load("digits", train_examples=320, seed=seed)
    parts = create_experiment(config, DataInfo.of(digits), 5)
    as_wide = lambda x: x.astype(dtype) if x.dtype == jnp.float32 else x  # noqa: E731
    own = parts.settings
    settings.append(dataclasses.replace(own, mean=as_wide(own.mean), std=as_wide(own.std)))
    feeds.append(Feed(digits.train, settings[-1], placement, batch_size=64, seed=seed))
    state = create_train_state(parts.model, parts.objective, parts.optimizer, (8, 8, 1), seed)
    states.append(placement.replicate(jax.tree.map(as_wide, state)))


def save(which, number, kept):
    paths = jax.tree_util.tree_leaves_with_path(kept)
    found = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in paths}
    np.savez(f"{out}-{which}-{number}.npz", **found)


together = SeedsStep(settings, feeds)
state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
orders = [feed.order(0) for feed in feeds]
for step in range(int(steps)):
    state, report = together(state, np.stack([order[step] for order in orders]))
for number, (alone, feed) in enumerate(zip(states, feeds, strict=True)):
    save("together", number, jax.tree.map(lambda x, i=number: x[i], (state, report)))
    for _, (_, inputs) in zip(range(int(steps)), feed.inputs(0, 0), strict=False):
        alone, own_report = feed.run(alone, inputs)
    save("alone", number, (alone, own_report))
