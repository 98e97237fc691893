"""Images named by a CSV file with the columns path, label and, where it has one, split."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from collab_jax.data.folder_source import identity
from collab_jax.data.image_files import SPLITS, Listing
from collab_jax.errors import UserError

__all__ = ["listing"]


def listing(file: Path, name: str) -> Listing:
    """The images of a CSV file, in its order.

    Args:
        file: with a first line of column names; `path` is relative to the file's folder, `label`
            any text (classes in order, numbers by value), `split` train, test or val.
        name: the data set's name, for messages.

    Raises:
        UserError: no such file, a column is missing, or a line is at fault; the message names it.
    """
    rows = _rows(file, name)
    texts = {row["label"] for _, row in rows}
    numbers = all(text.isascii() and text.isdecimal() for text in texts)
    class_names = tuple(sorted(texts, key=(lambda text: (int(text), text)) if numbers else None))
    places = {text: place for place, text in enumerate(class_names)}
    paths = [file.parent / row["path"] for _, row in rows]
    identities = []
    for path, (line, _) in zip(paths, rows, strict=True):
        if not path.is_file():
            raise UserError(f"{file}, line {line}: no file {path}")
        identities.append(identity(path, file.parent))
    return Listing(
        name=name,
        labels=np.asarray([places[row["label"]] for _, row in rows]),
        splits=[row["split"] for _, row in rows],
        class_names=class_names,
        identity=identities,
        open=lambda row: open(paths[row], "rb"),
        where=lambda row: str(paths[row]),
    )


def _rows(file: Path, name: str) -> list[tuple[int, dict[str, str]]]:
    """(line, path, label and split by column) of every row."""
    rows = []
    try:
        with open(file, encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text, strict=True)
            columns = [column.strip() for column in reader.fieldnames or ()]
            reader.fieldnames = columns
            for column in ("path", "label"):
                if column not in columns:
                    raise UserError(
                        f"{file}: no column {column}, expected path, label and, where there is "
                        f"one, split; it has {', '.join(columns) or 'none'}"
                    )
            for row in reader:
                rows.append((reader.line_num, _checked(row, f"{file}, line {reader.line_num}")))
    except OSError as error:
        raise UserError(
            f"data.name = {name}: cannot be read ({error.strerror}), expected a CSV file with the "
            "columns path and label"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not a CSV file in UTF-8 ({error})") from None
    if not rows:
        raise UserError(f"{file}: no rows, expected one for each image")
    if len({bool(row["split"]) for _, row in rows}) > 1:
        line = next(line for line, row in rows if not row["split"])
        raise UserError(f"{file}, line {line}: no split, expected train, test or val as elsewhere")
    return rows


def _checked(row: dict[str, str | None], where: str) -> dict[str, str]:
    if None in row:
        raise UserError(f"{where}: more values than columns")
    found = {column: (row.get(column) or "").strip() for column in ("path", "label", "split")}
    for column in ("path", "label"):
        if not found[column]:
            raise UserError(f"{where}: no {column}")
    split = found["split"].lower()
    if split and split not in SPLITS:
        raise UserError(f"{where}: split is {split!r}, expected one of {', '.join(SPLITS)}")
    return {**found, "split": SPLITS.get(split, "")}
