"""Prepares a TFDS data set as array_record: the only code that runs with TensorFlow.

It runs as a program of its own, so that TensorFlow stays out of the training process, and hence
imports nothing of this package. It reads a request and writes its result as JSON:

    {"name": ..., "data_dir": ..., "download_dir": ..., "manual_dir": ..., "extract_dir": ...,
     "url_infos": {url: [size, sha256, file name]}, "progress": true}  ->  {"error": ""}
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any


def prepare(request: dict[str, Any]) -> None:
    """Download what is missing and prepare the data set."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.checksums import UrlInfo

    if not request["progress"]:
        tfds.disable_progress_bar()
    builder: Any = tfds.builder(request["name"], data_dir=request["data_dir"])
    for url, (size, checksum, filename) in request["url_infos"].items():
        builder.url_infos[url] = UrlInfo(size=size, checksum=checksum, filename=filename)
    builder.download_and_prepare(
        download_dir=request["download_dir"],
        file_format="array_record",
        download_config=tfds.download.DownloadConfig(
            manual_dir=request["manual_dir"],
            extract_dir=request["extract_dir"],
            try_download_gcs=False,
        ),
    )


def main() -> int:
    """Answer the request of standard input on standard output."""
    error = ""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            prepare(json.load(sys.stdin))
        except KeyboardInterrupt:
            return 130
        except Exception as exception:  # Builders raise errors of any kind on a damaged archive.
            error = f"{type(exception).__name__}: {exception}"
    print(json.dumps({"error": error}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
