"""Attaching to models in the styles that people write, without one edited line."""

import re

import flax.linen as nn
import jax
import numpy as np
import pytest
from attached import Case, changes_nothing, moved_by_each_feature, trains
from foreign import (
    EncoderBlock,
    FactoryNet,
    RecordingLayer,
    RecordingNet,
    Transformer,
    UnnamedResNet,
    images,
    tokens,
)

from collab_jax import linen


def kernels_of(*paths):
    def kernels(params):
        for path in paths:
            tree = params
            for name in path.split("/"):
                tree = tree[name]
            yield tree["kernel"]

    return kernels


@pytest.fixture(scope="module")
def unnamed():
    return Case(
        UnnamedResNet(), images(), layers=(nn.Conv, "!**/proj_conv"), then=nn.BatchNorm,
        feature=lambda path, h: nn.relu(h),
    )  # fmt: skip


@pytest.mark.slow
def test_unnamed_convolutions_and_norms(unnamed):
    changes_nothing(unnamed)
    moved = moved_by_each_feature(unnamed)
    names = ["BatchNorm_0", *(f"Block_{b}/BatchNorm_{i}" for b in (0, 1) for i in (0, 1))]
    assert list(moved) == names
    for norm, leaves in moved.items():
        conv = norm.replace("BatchNorm", "Conv")
        assert set(leaves) == {f"{conv}/kernel", f"{norm}/scale", f"{norm}/bias"}
    trains(unnamed, kernels_of("Block_1/Conv_0", "Block_1/Conv_1"))


def test_a_chain_costs_no_more_convolutions(unnamed):
    def convolutions(run):
        text = jax.jit(jax.grad(run)).lower(unnamed.params).compile().as_text()
        return len(re.findall(r" convolution\(|custom-call.*conv", text))

    def plain(params):
        outputs, _ = unnamed.plain(params, unnamed.inputs)
        return (outputs**2).sum()

    def captured(params):
        found = unnamed.capture(params, unnamed.inputs)
        return (found.outputs**2).sum() + sum((h**2).sum() for h in found.features)

    assert convolutions(plain) == convolutions(captured) == 3 * 6 - 1


@pytest.mark.slow
def test_a_scanned_and_rematerialised_transformer():
    selection = {"layers": EncoderBlock, "feature": lambda path, output: output[0][0]}
    unedited = Case(Transformer(lifted=()), tokens(), mutable=(), **selection)
    with pytest.raises(
        linen.CaptureError, match=r"the nn\.scan of 'blocks'.*add variable_axes=\{'intermediates'"
    ):
        unedited.capture(unedited.params, tokens())
    case = Case(Transformer(), tokens(), mutable=(), **selection)
    changes_nothing(case)
    moved = moved_by_each_feature(case)
    assert list(moved) == ["blocks[0]", "blocks[1]"]
    own = {path for path in moved["blocks[0]"] if not path.endswith("key/bias")}
    assert len(own) == 4 + 7 + 4
    for depth, leaves in enumerate(moved.values()):
        assert own <= set(leaves)
        for path, leaf in leaves.items():
            assert path.startswith("blocks/")
            assert [bool((part != 0).any()) for part in leaf] == [i == depth for i in range(2)]
    trains(case, lambda params: params["blocks"]["down"]["kernel"])


def test_what_runs_first_in_a_scan_comes_first():
    case = Case(Transformer(), tokens(), mutable=(), layers=("blocks/attention", "**/down"))
    paths = case.capture(case.params, tokens()).paths
    assert paths == tuple(f"blocks/{part}[{i}]" for i in range(2) for part in ("attention", "down"))


@pytest.mark.slow
def test_a_factory_of_sequentials_with_an_excluded_shortcut():
    case = Case(FactoryNet(), images(), mutable=(), layers=(nn.Sequential, "!shortcut"))
    changes_nothing(case)
    moved = moved_by_each_feature(case)
    assert list(moved) == ["stem", "main_0", "main_1"]
    for path, leaves in moved.items():
        assert set(leaves) == {
            f"{path}/layers_0/kernel", f"{path}/layers_1/scale", f"{path}/layers_1/bias"
        }  # fmt: skip
    trains(case, kernels_of("main_0/layers_0"))


@pytest.mark.slow
def test_recorded_activations_and_a_sown_loss():
    case = Case(RecordingNet(), images(), ("batch_stats", "losses"), layers=RecordingLayer)
    changes_nothing(case)  # The sown losses and the dictionary are in the gradient that it takes.
    found = case.capture(case.params, case.inputs)
    assert set(found.outputs[1]) == {"input", "layer0", "layer1", "order"}
    assert set(found.variables) == {"batch_stats", "losses"}
    np.testing.assert_array_equal(found.outputs[1]["layer1"], found.features[1])
    moved = moved_by_each_feature(case)
    for path, leaves in moved.items():
        assert set(leaves) == {f"{path}/conv/kernel", f"{path}/norm/scale", f"{path}/norm/bias"}
    trains(case, kernels_of("layer1/conv"))
