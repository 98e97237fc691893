"""Image-classification data sets of Hugging Face: a name, or a folder on this machine."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from collab_jax.data.download import unreachable
from collab_jax.data.image_files import SPLITS, Listing
from collab_jax.errors import UserError, needs

__all__ = ["listing"]

_LABELS = ("label", "labels", "fine_label", "class")

_log = logging.getLogger(__name__)


def listing(place: str, name: str, root: Path) -> Listing:
    """The images of a data set, split by split in their own order.

    Args:
        place: a folder of parquet files or one that `save_to_disk` has written, a parquet file,
            else a name such as `owner/set`, or `owner/set:configuration`. Without a network what
            was loaded before is found in the library's own cache.
        name: the data set's name, for messages.
        root: folder of cached data, for what is read from this machine.

    Raises:
        UserError: it cannot be loaded, or has not one image and one label in a row.
    """
    with needs("hf"):
        import datasets
    parts = {}
    for split, rows in _loaded(place, name, root).items():
        if split.lower() in ("", *SPLITS):
            parts[SPLITS.get(split.lower(), "")] = rows
        else:
            _log.warning("%s: its split %s is left out", name, split)
    if not parts:
        raise UserError(f"{name} has no split train, expected one")
    image, label = _columns(next(iter(parts.values())).features, name)
    texts = {}
    for split, rows in list(parts.items()):
        texts[split] = np.asarray(rows[label][:])
        if texts[split].dtype.kind == "i" and (texts[split] == -1).all():
            _log.warning("%s: its split %s is left out, it has no labels", name, split)
            del parts[split], texts[split]
    class_names, labels = _labels(next(iter(parts.values())).features[label], texts, name)
    encoded = [rows.cast_column(image, datasets.Image(decode=False)) for rows in parts.values()]
    starts = np.cumsum([0, *map(len, encoded)])

    def place_of(row: int) -> tuple[int, int]:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return part, row - int(starts[part])

    def opened(row: int) -> io.BufferedReader | io.BytesIO:
        part, index = place_of(row)
        value = encoded[part][index][image]
        if value is None:
            raise UserError(f"{where(row)}: no image")
        return io.BytesIO(value["bytes"]) if value["bytes"] else open(value["path"], "rb")

    def where(row: int) -> str:
        part, index = place_of(row)
        return f"{name}, {list(parts)[part] or 'train'} row {index}"

    return Listing(
        name=name,
        labels=labels,
        splits=[split for split, rows in parts.items() for _ in range(len(rows))],
        class_names=class_names,
        identity=[_identity(rows) for rows in parts.values()],
        open=opened,
        where=where,
    )


def _loaded(place: str, name: str, root: Path) -> Mapping[str, Any]:
    """The data set's splits by name, "" for one without splits."""
    import datasets

    path = Path(os.path.abspath(os.path.expanduser(place)))
    reason = ""
    with contextlib.ExitStack() as stack:
        if not sys.stderr.isatty():
            stack.callback(datasets.enable_progress_bars)
            datasets.disable_progress_bars()
        if not path.exists():
            reason = stack.enter_context(_offline_where_it_must_be())
        try:
            if not path.exists():
                repository, _, configuration = place.partition(":")
                loaded = datasets.load_dataset(repository, configuration or None)
            elif any((path / file).exists() for file in ("dataset_dict.json", "state.json")):
                loaded = datasets.load_from_disk(str(path))
            else:
                loaded = datasets.load_dataset(
                    "parquet" if path.is_file() else str(path),
                    data_files=str(path) if path.is_file() else None,
                    cache_dir=str(root / "huggingface"),
                )
        # The library, its parsers and the network each have errors of their own.
        except Exception as error:
            told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            hint = f"; there is no such folder, and {reason}" if reason else ""
            raise UserError(f"data.name = {name!r}: cannot be loaded ({told}{hint})") from None
    return (
        {str(split): rows for split, rows in loaded.items()}
        if isinstance(loaded, dict)
        else {"": loaded}
    )


@contextlib.contextmanager
def _offline_where_it_must_be() -> Iterator[str]:
    """Without a network look into the cache alone, at once; yields what is wrong with it."""
    from datasets import config
    from huggingface_hub import constants

    reason = "" if config.HF_HUB_OFFLINE else unreachable([constants.ENDPOINT])
    before = constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE
    try:
        if reason:
            constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
        yield reason
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = before


def _columns(features: Mapping[str, Any], name: str) -> tuple[str, str]:
    """The columns of the image and of the label."""
    import datasets

    images = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
    classes = [key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    known = [key for key in _LABELS if key in features]
    label = classes[0] if len(classes) == 1 else next(iter(known), None)
    if len(images) != 1 or label is None:
        raise UserError(
            f"{name} has the columns {', '.join(features)}, expected one of images, and of classes "
            f"one, or one that is called {' or '.join(_LABELS)}"
        )
    return images[0], label


def _labels(
    feature: Any, texts: Mapping[str, np.ndarray], name: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """The class names and the labels of all splits, one after the other."""
    values = list(itertools.chain.from_iterable(texts.values()))
    if any(value is None for value in values):
        raise UserError(f"{name} has a row without a label, expected one in each")
    class_names = getattr(feature, "names", None)
    if class_names is None:
        known = sorted(set(values))
        places = {value: place for place, value in enumerate(known)}
        return tuple(map(str, known)), np.asarray([places[value] for value in values])
    labels = np.asarray(values, np.int64)
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise UserError(
            f"{name} has the label {labels.min() if labels.min() < 0 else labels.max()}, expected "
            f"0 to {len(class_names) - 1}"
        )
    return tuple(class_names), labels


def _identity(rows: Any) -> str:
    """What changes when a split does: the files that its table is mapped from."""
    files = [Path(file["filename"]) for file in rows.cache_files]
    status = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return repr((len(rows), status))
