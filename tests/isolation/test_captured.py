"""What a capture gives: call order, names, and the array that is a feature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from collab_jax.isolation import Calls, Captured, CaptureError, Paths, pick


def test_features_come_in_call_order_with_their_names():
    calls = Calls()
    calls.note("late", 0, (2,))
    calls.note("early", 0, (2,))
    calls.note("scan", 0, (2,))
    calls.note("late", 1, (2,))
    calls.note("scan", 0, (2,))  # traced again
    gone = calls.note("gone", 0, (2,))
    calls.forget(gone)
    sown = {
        "late": (jnp.zeros(2), jnp.ones(2)),
        "early": (jnp.full(2, 2.0),),
        "scan": (jnp.arange(8.0).reshape(2, 2, 2),),
    }
    features, paths = calls.collect(sown.__getitem__)
    assert paths == (
        "late",
        "early",
        *(f"scan[{i}][{j}]" for i in (0, 1) for j in (0, 1)),
        "late#2",
    )
    expected = [[0, 0], [2, 2], [0, 1], [2, 3], [4, 5], [6, 7], [1, 1]]
    np.testing.assert_array_equal(np.stack(features), expected)
    assert calls.paths() == {"late", "early", "scan"}


def test_layers_of_a_scan_come_one_after_another():
    calls = Calls()
    calls.note("blocks/a", 0, (), scan="blocks")
    calls.note("blocks/b", 0, (), scan="blocks")
    calls.note("others/a", 0, (), scan="others")
    sown = {"blocks/a": [0, 2], "blocks/b": [1, 3], "others/a": [4, 5]}
    features, paths = calls.collect(lambda path: [jnp.asarray(sown[path])])
    assert paths == (
        "blocks/a[0]", "blocks/b[0]", "blocks/a[1]", "blocks/b[1]", "others/a[0]", "others/a[1]"
    )  # fmt: skip
    np.testing.assert_array_equal(np.stack(features), range(6))


def test_a_jitted_function_may_return_it_whole():
    made = jax.jit(lambda x: Captured(x, (x + 1,), {}, Paths(["a"])))(jnp.zeros(2))
    assert made.paths == ("a",)
    outputs, features, variables, paths = made
    np.testing.assert_array_equal(features[0], outputs + 1)


def test_the_feature_is_an_array_or_the_error_says_how_to_make_it_one():
    x = jnp.zeros((2, 3))
    assert pick("a", object(), x, None) is x
    assert pick("a", object(), (x, None), lambda path, output: output[0]) is x
    with pytest.raises(
        CaptureError, match=r"'a' \(object\) returns \(float32\[2, 3\], None\), not"
    ):
        pick("a", object(), (x, None), None)
    with pytest.raises(CaptureError, match=r"pass feature=lambda path, output"):
        pick("a", object(), {"h": x, "mode": "mean"}, None)
    with pytest.raises(CaptureError, match=r"feature gave \[float32\[2, 3\]\] for 'a' \(object\)"):
        pick("a", object(), x, lambda path, output: [output])
    with pytest.raises(CaptureError, match=r"feature gave None for 'a'"):
        pick("a", object(), x, lambda path, output: None)
