"""Every Python block of README and docs runs as it is printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_TRAINED = """
import os, subprocess, sys
import numpy as np

def collab_jax_does(*arguments):
    subprocess.run([sys.executable, "-m", "collab_jax", *arguments], check=True)

collab_jax_does(
    "--config", "digits_vgg16:{method}", "--config.steps=1", "--config.model.width=0.0625",
    "--config.model.classifier_width=8", "--workdir", "runs/digits_vgg16/{method}/seed-0",
)
images = np.zeros((3, 8, 8, 1), np.uint8)
"""
_EXPORTED = """
collab_jax_does("--mode", "export", "--workdir", "runs/digits_vgg16/baseline/seed-0")
os.chdir("runs/digits_vgg16/baseline/seed-0/exported-best")
sys.path.insert(0, ".")
"""
# What a page's text says is there before its first block.
GIVEN = {
    "README.md": _TRAINED.format(method="baseline"),
    "docs/index.md": _TRAINED.format(method="out+mid"),
    "docs/guides/export.md": _TRAINED.format(method="baseline") + _EXPORTED,
    "docs/guides/own_data.md": """
import numpy as np
train_images = test_images = np.zeros((4, 8, 8, 1), np.uint8)
train_labels = test_labels = np.arange(4)
""",
}


def blocks(page):
    """The page's Python blocks, but for whole programs; an indented one belongs to a list."""
    text = re.sub(r"<!-- (file \S+) -->.*?<!-- end of \1 -->", "", page.read_text(), flags=re.S)
    found = re.finditer(r"^( *)```python\n(.*?)^\1```$", text, re.M | re.S)
    return [re.sub(f"^{match[1]}", "", match[2], flags=re.M) for match in found]


WITH_BLOCKS = [str(page.relative_to(ROOT)) for page in PAGES if blocks(page)]


def test_there_are_blocks():
    assert {"README.md", "docs/index.md", "docs/guides/own_model.md"} <= set(WITH_BLOCKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_blocks_run(name, tmp_path):
    program = "\n\n".join([GIVEN.get(name, ""), *blocks(ROOT / name)])
    (tmp_path / "page.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, f"{name}: {done.stderr[-3000:]}"
