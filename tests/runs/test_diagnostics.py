"""What evaluation finds inside a network, against its definitions written out again."""

import numpy as np
import pytest
from tiny import tiny_config

from collab_jax import data
from collab_jax.data import DataInfo
from collab_jax.models import stage_kernels
from collab_jax.runs import diagnostics, evaluate, loop
from collab_jax.training import build
from collab_jax.training.state import create_train_state


def correlation(kernel):
    return np.corrcoef(kernel.astype(np.float64).reshape(-1, kernel.shape[-1]).T)


def cosines(vectors):
    vectors = vectors - vectors.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(vectors, axis=1)
    return vectors @ vectors.T / np.outer(norms, norms)


def test_images_are_the_first_of_each_class_in_order():
    labels = np.array([1, 0, 1, 2, 0, 2, 1] * 12)
    rows = diagnostics.pick_images(labels, 3)
    np.testing.assert_array_equal(labels[rows], np.repeat([0, 1, 2], 8))
    np.testing.assert_array_equal(rows[:8], np.flatnonzero(labels == 0)[:8])
    assert len(diagnostics.pick_images(np.arange(1000) % 20, 20)) == 80


def test_filter_correlations_are_numpys_and_a_constant_filter_has_none():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(
        diagnostics.filter_correlations(kernel), correlation(kernel), atol=1e-9
    )
    kernel[..., 2] = 1.5
    found = diagnostics.filter_correlations(kernel)
    assert np.isfinite(found).all() and not found[2].any() and not found[:, 2].any()


@pytest.mark.slow
def test_evaluation_keeps_similarities_and_filters_before_and_after(tmp_path):
    config = tiny_config("out", epochs=1, decay_epochs=(1,))
    loop.run(config, tmp_path / "run")
    evaluate.run(tmp_path / "run", checkpoint="last")
    with np.load(tmp_path / "run" / "evaluation-last" / "diagnostics.npz") as file:
        found = dict(file)
    labels = found["labels"]
    np.testing.assert_array_equal(labels, np.repeat(np.arange(10), 8))
    same = labels[:, None] == labels[None, :]
    expected = np.where(same, 1.0, -1.0 / 9.0)
    np.testing.assert_allclose(found["similarity_labels"], expected, atol=1e-3)
    dataset = build.load_data(config)
    rows = diagnostics.pick_images(dataset.test.labels, 10)
    images, _ = dataset.test.take(rows)
    info = DataInfo.of(dataset)
    inputs = np.asarray(data.normalise(images, np.array(info.mean), np.array(info.std)))
    expected = cosines(inputs.reshape(len(inputs), -1).astype(np.float64))
    np.testing.assert_allclose(found["similarity_inputs"], expected, atol=2e-3)
    for when in ("before", "after"):
        layers = found[f"similarity_{when}"].astype(np.float64)
        assert layers.shape == (13, 80, 80)
        np.testing.assert_allclose(layers, layers.transpose(0, 2, 1), atol=2e-3)
        assert np.abs(layers).max() <= 1.001
    assert not np.array_equal(found["similarity_before"], found["similarity_after"])
    made = build.create_experiment(config, info, 5)
    start = create_train_state(
        made.model, made.objective, made.optimizer, info.image_shape, config.seed
    )
    kernels = [np.asarray(kernel) for kernel in stage_kernels(start.params, config.kernel.stages)]
    shown = found["filters_before"].shape[1]
    for kernel, matrix, level in zip(
        kernels, found["filters_before"], found["filter_correlation_before"], strict=True
    ):
        whole = correlation(kernel)
        np.testing.assert_allclose(matrix, whole[:shown, :shown], atol=1e-3)
        others = whole[~np.eye(len(whole), dtype=bool)]
        assert level == pytest.approx(np.sqrt(np.mean(others**2)), rel=1e-6)
