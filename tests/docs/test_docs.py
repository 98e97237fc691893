"""The documentation builds strictly, opens offline, and knows every public name."""

import contextlib
import importlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from public import public_modules

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """A page's anchors, and what its own parts are loaded from."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.resources, self.headings = set(), [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if "id" in attributes:
            self.ids.add(attributes["id"])
            if "doc-heading" in (attributes.get("class") or ""):
                self.headings.add(attributes["id"])
        name = {"link": "href", "object": "data"}.get(tag, "src")
        if tag != "a" and attributes.get(name):
            self.resources.append(attributes[name])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_public_name_has_a_section(pages):
    documented = set().union(*(page.headings for page in pages.values()))
    # A name that another module exports as well needs one section.
    sections = {}
    for name in documented - set(public_modules()):
        module, _, member = name.rpartition(".")
        with contextlib.suppress(ModuleNotFoundError):  # a method's class is no module
            value = getattr(importlib.import_module(module), member, None)  # a module within one
            sections.setdefault(member, []).append(value)
    missing = []
    for module_name in public_modules():
        module = importlib.import_module(module_name)
        if module_name not in documented:
            missing.append(module_name)
        for member in module.__all__:
            value = getattr(module, member)
            if member != "__version__" and not any(value is v for v in sections.get(member, [])):
                missing.append(f"{module_name}.{member}")
    assert not missing, f"without documentation: {', '.join(missing)}"


def test_every_public_name_has_a_docstring():
    for module_name in public_modules():
        module = importlib.import_module(module_name)
        for member in module.__all__:
            value = getattr(module, member)
            if callable(value):
                own = vars(value).get("__doc__") if isinstance(value, type) else value.__doc__
                # A dataclass or named tuple without a docstring gets its signature for one.
                assert own and not own.startswith(f"{member}("), f"{module_name}.{member}"


def test_nothing_is_loaded_from_elsewhere(site, pages):
    assert len(pages) > 10
    for path, page in pages.items():
        assert page.resources
        for resource in page.resources:
            assert not re.match(r"(https?:)?//", resource), f"{path.name}: {resource}"
            if path.name != "404.html" and not resource.startswith("data:"):
                assert (path.parent / resource.split("?")[0].split("#")[0]).exists(), resource
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", style.read_text()), style


def test_formulas_figures_and_tables_are_there(site, pages):
    method = (site / "method.html").read_text()
    assert method.count('class="arithmatex"') > 20 and "$$" not in method
    for name in ("branches", "local", "similarity"):
        assert f'src="figures/{name}.svg"' in method
        assert (site / "figures" / f"{name}.svg").read_text().count("<path") > 10
    assert {"fonts", "katex.min.css"} <= {p.name for p in (site / "assets/katex").iterdir()}
    from collab_jax.config import SCHEMA

    configuration = (site / "configuration.html").read_text()
    for key in SCHEMA:
        assert f"<code>{key}</code>" in configuration
    assert "cifar100_vgg16_label_noise" in (site / "guides/reproduce.html").read_text()
    pages = ("index", "guides/linen", "guides/nnx", "guides/plain_jax")
    for page in (site / f"{name}.html" for name in pages):
        assert "__main__" in page.read_text(), "an example is missing"
        assert "&lt;!--" not in page.read_text()


def test_figures_are_the_same_at_every_drawing(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    figures = importlib.import_module("figures")
    assert figures.draw_all() == figures.draw_all()
