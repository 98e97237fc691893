"""`python -m collab_jax.report DIR [DIR ...] --out DIR`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from collab_jax.errors import RunError, UserError
from collab_jax.report import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m collab_jax.report",
        allow_abbrev=False,
        description="Writes a study, finished or running, as one HTML page and as Markdown.",
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="of a study or a search")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="for the report")
    options = parser.parse_args(arguments)
    try:
        print(write_report(options.folders, options.out))
    except (UserError, RunError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except ModuleNotFoundError as error:
        print(f"error: {error}; expected the extra `study`", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
