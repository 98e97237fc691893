"""Strict settings for every test: implicit broadcasting over ranks is an error."""

import os
import tempfile

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# LLVM's optimisations take most of the compile time, and programs this small do not repay it.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
# Tests that build one program twice compile it once, all of pytest's workers together.
_PROGRAMS = "COLLAB_JAX_TEST_PROGRAMS"
if _PROGRAMS not in os.environ:
    os.environ[_PROGRAMS] = tempfile.mkdtemp(prefix="collab_jax-tests-")

# Packages whose annotations are checked at every call, but for tests marked `misuse`.
_ANNOTATED = ("losses", "isolation", "linen", "nnx", "models", "objective", "data", "training")


def pytest_configure(config):
    hands_out_tests = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if hands_out_tests:
        return  # What JAX prints as it loads would come after pytest's summary.
    import jax
    import jaxtyping

    names = [f"collab_jax.{name}" for name in _ANNOTATED]
    jaxtyping.install_import_hook(names, "annotations.checked")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_compilation_cache_dir", os.environ[_PROGRAMS])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(autouse=True)
def annotations(request):
    """Whether annotations are checked: not where a test gives what they exclude."""
    import jaxtyping

    misuse = request.node.get_closest_marker("misuse") is not None
    jaxtyping.config.update("jaxtyping_disable", misuse)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def logger():
    """Each test finds the package's logger as a library leaves it, whatever program ran before."""
    import logging

    logger = logging.getLogger("collab_jax")
    before = logger.handlers[:], logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate = before[:2]
    logger.setLevel(before[2])
