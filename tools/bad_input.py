"""Damaged checkpoints, fuzzed command lines and damaged data files, in this process."""

import dataclasses
import os
import random
import shutil
import string
import sys
import time
import warnings
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path

import jax
import numpy as np
from disturbed import damage, random_file
from PIL import Image
from reliability_row import Row

from collab_jax import cli, data
from collab_jax import config as config_lib
from collab_jax.data import DataInfo
from collab_jax.errors import RunError, UserError
from collab_jax.runs import loop
from collab_jax.runs.checkpoint import Checkpointer, checkpoint_dir, complete_steps, read_checkpoint
from collab_jax.runs.directory import read_config
from collab_jax.training.build import create_experiment, load_data
from collab_jax.training.state import Batch, create_train_state
from collab_jax.training.step import train_step

_LINE = 1000


def _is_one_line(error: Exception) -> bool:
    return "\n" not in str(error) and 0 < len(str(error)) < _LINE


def _equal(one: object, other: object) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


def _template(run_dir: Path) -> object:
    config = read_config(run_dir)
    dataset = load_data(config)
    info = DataInfo.of(dataset)
    parts = create_experiment(config, info, len(dataset.train) // config.batch_size)
    return create_train_state(
        parts.model, parts.objective, parts.optimizer, info.image_shape, config.seed
    )


def _restore(run_dir: Path, template: object) -> tuple[int, object]:
    checkpointer = Checkpointer(run_dir)
    try:
        step, state, _ = checkpointer.restore(template)
        return step, state
    finally:
        checkpointer.close()


def checkpoints(folder: Path, reference: Path, count: int, seed: int) -> Row:
    """One flip or cut each, in the newest checkpoint; every fourth time in all of them."""
    rng = random.Random(seed)
    template = _template(reference)
    sound = {}
    for step in complete_steps(checkpoint_dir(reference)):
        copy = folder / "one"
        for other in complete_steps(checkpoint_dir(reference)):
            if other <= step:
                source = checkpoint_dir(reference) / str(other)
                shutil.copytree(source, checkpoint_dir(copy) / str(other))
        sound[step] = _restore(copy, template)[1]
        shutil.rmtree(copy)
    newest = max(sound)
    fell_back = refused = harmless = wrong = 0
    for trial in range(count):
        copy = folder / "damaged-copy"
        shutil.copytree(checkpoint_dir(reference), checkpoint_dir(copy))
        damaged = sorted(sound) if trial % 4 == 3 else [newest]
        for step in damaged:
            damage(random_file(checkpoint_dir(copy) / str(step), rng), rng)
        try:
            # The reader of `collab_jax.load` and the evaluation, which has nothing to fall back to.
            read_checkpoint(checkpoint_dir(copy), newest, lambda record: {})
            told = False
        except RunError as error:
            told = _is_one_line(error)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                step, state = _restore(copy, template)
            except RunError as error:
                good = len(damaged) > 1 and told and _is_one_line(error)
                refused += good
                wrong += not good
            else:
                named = any("going on from" in str(warning.message) for warning in caught)
                if step == newest:
                    harmless += _equal(state, sound[newest])
                    wrong += not _equal(state, sound[newest])
                else:
                    good = told and named and step in sound and _equal(state, sound[step])
                    fell_back += good
                    wrong += not good
        shutil.rmtree(copy)
    return Row(
        "flipped byte or cut at a random place of a checkpoint (every fourth time of each one)",
        count,
        f"{fell_back} fell back with a warning, {refused} refused in one line as none was sound, "
        f"{harmless} harmless, {wrong} wrong",
        wrong == 0 and fell_back + refused + harmless == count,
    )


# Of a run that takes seconds, where the fuzzed keys leave it alone.
_TINY = {
    "batch_size": "32",
    "model.width": "0.0625",
    "model.classifier_width": "16",
    "mid.head_width": "4",
    "pull_push.projection_width": "4",
    "multi_head.heads": "2",
}
_LARGEST_TO_RUN = 500_000
# Seconds; tracing several copies of a ResNet-101 on a busy machine takes minutes.
_HANGS = 600
_METHODS = ["baseline", "out", "mid", "pull_push", "kernel", "out+mid", "tree", "multi_instance"]


def _near_valid(key: str, rng: random.Random) -> str:
    row = config_lib.SCHEMA[key]
    if isinstance(row.allowed, tuple):
        return rng.choice(row.allowed)
    if key == "method":
        return rng.choice(_METHODS)
    return {
        bool: lambda: rng.choice(["true", "false"]),
        int: lambda: str(rng.randrange(9)),
        float: lambda: repr(rng.uniform(0, 1.5)),
        str: lambda: rng.choice(["digits", str(row.default)]),
        tuple: lambda: rng.choice(["()", "1", "1,2", "0,1"]),
    }[row.kind]()


def _anything(key: str, rng: random.Random) -> str:
    return rng.choice(
        [
            str(rng.randrange(-3, 300)),
            repr(rng.uniform(-1, 3)),
            rng.choice(["nan", "inf", "1e999", "-0", "true", "False", "", "()", "1,2,3", "3,2"]),
            config_lib.as_text(config_lib.SCHEMA[key].default),
            rng.choice(["baseline", "out+mid", "tree", "digits", "/nowhere.npz", "..", "\x00"]),
            "".join(rng.choices(string.printable, k=rng.randrange(12))),
        ]
    )


def _command_line(rng: random.Random) -> list[str]:
    """A recipe, what makes it small, and one to three overrides."""
    overrides = dict(_TINY)
    for key in rng.sample(list(config_lib.SCHEMA), rng.randrange(1, 4)):
        name = key if rng.random() < 0.95 else key[:-1] + rng.choice(string.ascii_letters)
        overrides[name] = (_near_valid if rng.random() < 0.4 else _anything)(key, rng)
    recipe = f"--config=digits_vgg16:{rng.choice(_METHODS)}"
    return [recipe, *(f"--config.{name}={value}" for name, value in overrides.items())]


def _traced_size(config: config_lib.Config) -> int:
    """Traces the train step without running it; the number of parameters."""
    dataset = load_data(config)
    height, width, channels = dataset.train.image_shape
    config_lib.check_against_data(
        config, len(dataset.train), dataset.num_classes, (height, width, channels)
    )
    info = DataInfo.of(dataset)
    parts = create_experiment(config, info, len(dataset.train) // config.batch_size)
    init = partial(create_train_state, parts.model, parts.objective, parts.optimizer)
    state = jax.eval_shape(lambda: init(info.image_shape, config.seed))
    images = jax.ShapeDtypeStruct((config.batch_size, *info.image_shape), np.uint8)
    labels = jax.ShapeDtypeStruct((config.batch_size,), np.int32)
    batch = Batch(images=images, labels=labels, indices=labels)  # type: ignore[arg-type]
    jax.eval_shape(partial(train_step, parts.settings), state, batch)
    return sum(leaf.size for leaf in jax.tree.leaves((state.params, state.heads)))


def configs(folder: Path, run_every: int, count: int, seed: int) -> Row:
    """Command lines: refused, or traced; of those that are small each `run_every`-th is run."""
    rng = random.Random(seed)
    refused = traced = accepted = ran = stopped = wrong = 0
    slowest, slowest_is = 0.0, ""
    run_dir = folder / "fuzzed"
    for _ in range(count):
        line = _command_line(rng)
        began = time.monotonic()
        what = "one that is refused"
        try:
            with warnings.catch_warnings(), redirect_stderr(StringIO()):
                warnings.simplefilter("ignore")
                config = cli.parse([*line, f"--workdir={run_dir}"]).config
                what = f"{config.method} with {config.model.name}"
                small = _traced_size(config) <= _LARGEST_TO_RUN
                traced += 1
                if small and traced % run_every == 0:
                    loop.run(dataclasses.replace(config, steps=2), run_dir)
                    ran += (run_dir / "result.json").exists()
                accepted += 1
        except UserError as error:
            good = _is_one_line(error) and not run_dir.exists()
            refused += good
            wrong += not good
        except RunError as error:
            good = _is_one_line(error) and "not finite" in str(error)
            stopped += good
            wrong += not good
        except Exception as error:
            print(f"{line}: {error!r}", file=sys.__stderr__)
            wrong += 1
        shutil.rmtree(run_dir, ignore_errors=True)
        seconds = time.monotonic() - began
        if seconds > slowest:
            slowest, slowest_is = seconds, what
    return Row(
        "fuzzed command line, one to three overrides",
        count,
        f"{refused} refused in one line that leaves no run directory, {accepted} accepted (traced, "
        f"and {ran} trained two steps), {stopped} stopped in one line as not finite; {wrong} "
        f"wrong; the slowest took {slowest:.0f} s ({slowest_is})",
        wrong == 0 and refused + accepted + stopped == count and slowest < _HANGS,
    )


def data_files(folder: Path, path: Path, count: int, seed: int) -> Row:
    """An .npz file, an image in a folder, and the arrays cached from it, damaged in turns."""
    rng = random.Random(seed)
    told = equal = other = wrong = 0
    cached, pictures = folder / "cached", folder / "pictures"
    sound = data.load(str(path))
    for row, (image, label) in enumerate(zip(*sound.train.take(np.arange(40)), strict=True)):
        of_class = pictures / f"{label:03}"
        of_class.mkdir(parents=True, exist_ok=True)
        pixels = image.squeeze(-1) if image.shape[-1] == 1 else image
        Image.fromarray(pixels).save(of_class / f"{row}.png")
    by_folder = {"name": f"folder:{pictures}", "data_dir": str(cached), "test": 0.25}
    sound_pictures = data.load(**by_folder)
    # Copies: what is mapped from the cache is damaged with it.
    own, shown = (np.array(each.train.images) for each in (sound, sound_pictures))
    for trial in range(count):
        kind = ("npz", "image", "cached")[trial % 3]
        damaged = folder / "damaged.npz"
        if kind == "npz":
            shutil.copy(path, damaged)
            arguments, fingerprint, images = {"name": str(damaged)}, sound.fingerprint, own
        else:
            arguments, fingerprint, images = by_folder, sound_pictures.fingerprint, shown
            if kind == "image":
                damaged = random_file(pictures, rng)
            else:
                damaged = random_file(
                    next(p for p in (cached / "arrays" / "images").iterdir() if p.is_dir()), rng
                )
        content, status = damaged.read_bytes(), damaged.stat()
        try:
            damage(damaged, rng)
            found = data.load(**arguments)
            same = found.fingerprint == fingerprint and np.array_equal(found.train.images, images)
            equal += same
            # Few image formats have checksums: a pixel that differs is read as it is.
            other += kind == "image" and not same
            wrong += kind != "image" and not same
        except (UserError, RunError) as error:
            good = _is_one_line(error) and str(folder) in str(error)
            told += good
            wrong += not good
        except Exception as error:
            print(f"trial {trial}: {error!r}")
            wrong += 1
        finally:
            damaged.write_bytes(content)
            os.utime(damaged, ns=(status.st_atime_ns, status.st_mtime_ns))
    return Row(
        "damaged data file (.npz, an image in a folder, or the arrays cached of those)",
        count,
        f"{told} told in one line with the file, {equal} harmless, {other} images read with other "
        f"pixels, {wrong} wrong",
        wrong == 0,
    )
