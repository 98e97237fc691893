"""What the documentation site takes from the code: the figures."""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FETCHED = "https://unpkg.com/iframe-worker/shim"


def on_config(config: Any) -> None:
    """Makes the package and the figures importable from a checkout."""
    sys.path[:0] = [str(ROOT), str(ROOT / "docs")]


def on_files(files: Any, config: Any) -> Any:
    """Draws the figures into the site."""
    import figures
    from mkdocs.structure.files import File

    for name, content in figures.draw_all().items():
        files.append(File.generated(config, f"figures/{name}", content=content))
    return files


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Takes the search worker, which the offline plugin has fetched, from the site itself."""
    up = "../" * page.url.count("/")
    return output.replace(FETCHED, f"{up}assets/iframe-worker/shim.js")


def on_post_template(output_content: str, **_: Any) -> str:
    """Likewise on the page of a missing address."""
    return output_content.replace(FETCHED, "assets/iframe-worker/shim.js")
