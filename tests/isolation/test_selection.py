"""The language that selects modules, without any module system."""

import re
from functools import partial

import numpy as np
import pytest

from collab_jax.isolation import CaptureError, Selection, errors


class Conv:
    pass


class Wide(Conv):
    pass


class Norm:
    pass


MODULES = {
    "": Conv(),
    "stem": Conv(),
    "blocks/0": Norm(),
    "blocks/0/conv": Wide(),
    "blocks/0/norm": Norm(),
    "blocks/10/conv": Conv(),
    "head": Norm(),
}


@pytest.mark.parametrize(
    "select, expected",
    [
        (Conv, ["stem", "blocks/0/conv", "blocks/10/conv"]),
        (Wide, ["blocks/0/conv"]),
        ("stem", ["stem"]),
        ("blocks/*", ["blocks/0"]),
        ("blocks/*/conv", ["blocks/0/conv", "blocks/10/conv"]),
        ("blocks/?/conv", ["blocks/0/conv"]),
        ("**/conv", ["blocks/0/conv", "blocks/10/conv"]),
        ("**/stem", ["stem"]),
        ("blocks/**", ["blocks/0", "blocks/0/conv", "blocks/0/norm", "blocks/10/conv"]),
        ("**", [path for path in MODULES if path]),
        (("stem", "head"), ["stem", "head"]),
        (["**", "!blocks/**"], ["stem", "head"]),
        (("!blocks/0/**", Conv), ["stem", "blocks/10/conv"]),
        ((Norm, lambda path, _: path == "stem"), ["stem", "blocks/0", "blocks/0/norm", "head"]),
        (lambda path, module: np.bool_(isinstance(module, Wide)), ["blocks/0/conv"]),
        (("stem", ("**/conv", "!blocks/10/*")), ["stem", "blocks/0/conv"]),
    ],
)
def test_what_each_form_selects(select, expected):
    selection = Selection(select)
    assert [path for path, module in MODULES.items() if selection.matches(path, module)] == expected


@pytest.mark.parametrize(
    "select, message",
    [
        (3, r"layers must be a module class, a glob .* got 3"),
        (Conv(), r"layers must be a module class"),
        (("stem", None), r"got None"),
        ("", r"layers: the glob '' has an empty segment"),
        ("blocks//conv", r"'blocks//conv' has an empty segment"),
        (("stem", "!"), r"the glob '' has an empty segment"),
        ("!stem", r"layers='!stem' leaves out and selects nothing; .*\(\"\*\*\", '!stem'\)"),
        ((), r"layers=\(\) selects nothing"),
        (["!a", "!b"], r"layers=\('!a', '!b'\) selects nothing; a sequence needs"),
    ],
)
@pytest.mark.misuse
def test_what_is_no_selection_says_what_is(select, message):
    with pytest.raises(CaptureError, match=message):
        Selection(select)


def test_a_predicate_that_gives_no_bool_is_no_predicate():
    def conv(filters, kernel_size, strides):
        return Conv()

    with pytest.raises(CaptureError, match=r"then: the predicate .*conv.* gave .*Conv.* 'stem'"):
        Selection(partial(conv, strides=2), "then").matches("stem", MODULES["stem"])
    with pytest.raises(CaptureError, match=r"the predicate nothing gave None"):

        def nothing(path, module):
            return None

        Selection(nothing).matches("stem", MODULES["stem"])


def test_messages_name_the_argument_as_it_was_given():
    assert str(Selection((Conv, "a/*", "!b"), "then")) == "then=(Conv, 'a/*', '!b')"
    message = str(errors.nothing_matches(Selection("blocks/*/cov"), MODULES))
    assert "layers='blocks/*/cov' selects none" in message
    assert "did you mean 'blocks/0/conv'?" in message
    assert re.search(r"there are 'stem', 'blocks/0', .*'head'$", message)
    many = errors.nothing_matches(Selection(Wide), [f"layer{i}" for i in range(30)])
    assert str(many).endswith("'layer19' and 10 more") and "did you mean" not in str(many)


def test_globs_name_paths_without_their_modules():
    selection = Selection(("conv*", "!conv2", lambda path, module: module.features > 3))
    assert selection.names("conv1") and not selection.names("conv2")
    assert not selection.names("dense") and not Selection(int).names("conv1")
