"""What a configuration must satisfy, and how the rest is refused."""

import itertools
import math

import pytest
from ml_collections import ConfigDict

from collab_jax import config as config_lib
from collab_jax._version import __version__
from collab_jax.errors import UserError
from collab_jax.models import create_model
from collab_jax.models.registry import MODELS

TERMS = ("out", "mid", "pull_push", "kernel")
RIVALS = ("auxiliary", "self_distillation", "predsim", "r_drop", "hsic", "decov")


def refused(call, *arguments, **keywords) -> str:
    """The message of the UserError that a call raises, checked to be one readable line."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **keywords)
    message = str(caught.value)
    assert message and message.isprintable() and len(message) < 1000
    return message


def changed(method: str = "baseline", **values) -> ConfigDict:
    """A recipe with values by key, `__` standing for the dot."""
    return config_lib.recipe(method, {key.replace("__", "."): v for key, v in values.items()})


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_terms_in_any_order_give_the_canonical_method(count):
    for chosen in itertools.permutations(TERMS, count):
        method = config_lib.parse_method("+".join(chosen))
        assert config_lib.terms(method) == tuple(sorted(chosen, key=TERMS.index))
        assert method == "+".join(sorted(chosen, key=TERMS.index))


def test_rivals_follow_the_collaborations_in_a_canonical_order():
    assert config_lib.RIVALS == RIVALS
    for first, second in itertools.permutations((*TERMS, *RIVALS), 2):
        method = config_lib.parse_method(f"{first}+{second}")
        order = (*TERMS, *RIVALS)
        assert config_lib.terms(method) == tuple(sorted((first, second), key=order.index))
    for key in ("auxiliary.weight", "predsim.local_only", "model.drop_block"):
        assert f"\n{key}=" in "\n" + config_lib.list_keys()


def test_methods_that_stand_alone():
    for method in ("baseline", "tree", "multi_instance"):
        assert config_lib.parse_method(method) == method
        assert config_lib.terms(method) == ()
    assert config_lib.parse_method(" mid + out ") == "out+mid"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("out+out", ["out", "twice"]),
        ("mdi", ["'mdi'", "did you mean mid"]),
        ("out+pull-push", ["'pull-push'", "did you mean pull_push"]),
        ("Baseline", ["did you mean baseline"]),
        ("out,mid", ["did you mean out+mid?"]),
        ("out+mid kernel", ["did you mean out+mid+kernel?"]),
        ("auxillary", ["'auxillary'", "did you mean auxiliary"]),
        ("R-Drop", ["'R-Drop'", "did you mean r_drop"]),
        ("out+predsin", ["'predsin'", "did you mean predsim"]),
        ("decov+decov", ["decov is given twice"]),
        ("tree+r_drop", ["tree stands alone"]),
        ("baseline+out", ["baseline stands alone"]),
        ("", ["''", "expected"]),
        ("out+", ["''", "expected"]),
        ("xyzzy", ["'xyzzy'", "multi_instance"]),
        (None, ["None", "expected text"]),
    ],
)
def test_unknown_methods_are_refused_with_near_misses(text, parts):
    message = refused(config_lib.parse_method, text)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", True),
        ("epochs", 3.0),
        ("epochs", "3"),
        ("learning_rate", True),
        ("learning_rate", math.nan),
        ("learning_rate", -math.inf),
        ("learning_rate", 10**400),
        ("nesterov", 1),
        ("decay_epochs", 60),
        ("decay_epochs", (60, 1.0)),
        ("decay_epochs", (math.nan,)),
        ("decay_epochs", (0.0,)),
        ("decay_epochs", (True,)),
        ("data.name", None),
        ("data.name", b"cifar10"),
        ("model.name", ["vgg16"]),
        ("method", 3),
    ],
)
def test_wrong_types_are_refused(key, value):
    assert key in refused(config_lib.recipe, "baseline", {key: value})


@pytest.mark.parametrize(
    ("method", "values", "key"),
    [
        ("out", {"out__masks_per_layer": 1}, "out.masks_per_layer"),
        ("mid+out", {"model__dropout": 0.0}, "model.dropout"),
        ("pull_push", {"batch_size": 1}, "batch_size"),
        ("kernel", {"kernel__stages": 6}, "kernel.stages"),
        ("kernel", {"kernel__stages": 5, "model__name": "resnet18"}, "kernel.stages"),
        ("mid", {"mid__alpha": 0, "mid__beta": 0}, "mid.alpha"),
        ("mid", {"mid__beta": 0, "mid__output_view": True}, "mid.output_view"),
        ("baseline", {"decay_epochs": (60, 60)}, "decay_epochs"),
        ("baseline", {"decay_epochs": (60, 120, 90)}, "decay_epochs"),
        ("baseline", {"decay_epochs": (0.6, 0.3)}, "decay_epochs"),
        ("baseline", {"decay_epochs": (0.5, 60)}, "decay_epochs"),
        ("baseline", {"epochs": 3, "warmup_epochs": 3.5}, "warmup_epochs"),
        ("baseline", {"epochs": 3, "mid__ramp_epochs": 4}, "mid.ramp_epochs"),
        ("baseline", {"nesterov": True, "momentum": 0}, "nesterov"),
        ("baseline", {"checkpoint__every_epochs": 0}, "checkpoint.every_epochs"),
        ("baseline", {"data__validation": 1.5}, "data.validation"),
        ("baseline", {"data__name": " "}, "data.name"),
        ("baseline", {"data__train_examples": 127}, "data.train_examples"),
        ("baseline", {"data__cutout": 17, "data__image_size": 16}, "data.cutout"),
        ("baseline", {"data__mixup": 0.001}, "data.mixup"),
        ("baseline", {"data__cutmix": 1.0, "batch_size": 1}, "batch_size"),
        ("baseline", {"name": "../up"}, "name"),
        ("baseline", {"name": ".."}, "name"),
        ("tree", {"multi_head__heads": 3}, "multi_head.heads"),
        ("tree", {"multi_head__heads": 64}, "multi_head.heads"),
        ("tree", {"multi_head__split_stages": (3,)}, "multi_head.split_stages"),
        ("tree", {"multi_head__split_stages": (3, 5)}, "multi_head.split_stages"),
        ("tree", {"multi_head__split_stages": (4, 3)}, "multi_head.split_stages"),
        ("multi_instance", {"multi_head__split_stages": (3,)}, "multi_head.split_stages"),
        ("r_drop", {"model__dropout": 0}, "model.dropout"),
        ("hsic", {"batch_size": 1}, "batch_size"),
        ("decov", {"batch_size": 2, "micro_batches": 2}, "batch_size"),
        ("auxiliary", {"auxiliary__layers": (3, 1)}, "auxiliary.layers"),
        ("auxiliary", {"auxiliary__layers": (13,)}, "auxiliary.layers"),
        ("self_distillation", {"self_distillation__layers": (1, 1)}, "self_distillation.layers"),
        ("predsim+auxiliary", {"predsim__local_only": True}, "predsim.local_only"),
        ("predsim+decov", {"predsim__local_only": True}, "predsim.local_only"),
        (
            "predsim",
            {"predsim__local_only": True, "model__name": "resnet18"},
            "predsim.local_only",
        ),
    ],
)
def test_contradictions_are_refused_where_each_value_alone_is_fine(method, values, key):
    message = refused(config_lib.parse, changed(method, **values))
    assert message.startswith(f"config.{key} = ") and ": expected " in message


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("baseline", {"out__masks_per_layer": 1, "model__dropout": 0, "batch_size": 1}),
        ("kernel", {"kernel__stages": 5}),
        ("baseline", {"epochs": 3}),
        ("baseline", {"decay_epochs": ()}),
        ("baseline", {"data__validation": 1.0}),
        ("baseline", {"data__train_examples": 128}),
        ("tree", {"multi_head__split_stages": (2, 4)}),
        ("r_drop", {"model__dropout": 0, "model__drop_block": 0.1}),
        ("auxiliary", {"auxiliary__layers": (0, 12)}),
        ("mid+predsim", {"predsim__local_only": True}),
        ("tree", {"multi_head__heads": 2, "multi_head__split_stages": (4,)}),
        ("multi_instance", {"multi_head__heads": 3}),
        ("baseline", {"checkpoint__every_epochs": 0, "checkpoint__every_steps": 10}),
    ],
)
def test_what_looks_like_a_contradiction_but_is_none(method, values):
    config_lib.parse(changed(method, **values))


def test_a_method_out_of_canonical_order_is_told_its_order():
    config = config_lib.recipe()
    config.method = "mid+out"
    assert "out+mid" in refused(config_lib.parse, config)


def test_configs_built_by_hand_are_checked_whole():
    missing = ConfigDict(config_lib.recipe().to_dict())
    del missing.seed
    assert "config.seed is missing" in refused(config_lib.parse, missing)
    more = ConfigDict(config_lib.recipe().to_dict())
    more.epcohs = 3
    assert "did you mean epochs" in refused(config_lib.parse, more)
    flat = ConfigDict(config_lib.recipe().to_dict(), type_safe=False)
    flat.data = 3
    assert "config.data is a section" in refused(config_lib.parse, flat)


@pytest.mark.parametrize("version", ["0.0.9", "0.1", "0.1.0.0", __version__, "0.2.0rc1"])
def test_configs_of_this_and_earlier_versions_are_read(version):
    config_lib.parse(changed(version=version))


@pytest.mark.parametrize("version", ["0.2.1", "0.10", "1.0", "99.0.0", "0.3.0.dev1"])
def test_a_config_of_a_newer_version_is_refused_naming_both(version):
    message = refused(config_lib.parse, changed(version=version))
    assert version in message and __version__ in message


@pytest.mark.parametrize("version", ["", "new", "1x", "-1"])
def test_a_config_of_no_version_is_refused(version):
    assert "config.version" in refused(config_lib.parse, changed(version=version))


def test_without_effect_finds_options_of_terms_that_are_off():
    keys = ["seed", "out.alpha", "out.masks_per_layer", "mid.alpha", "multi_head.heads"]

    def find(method):
        return list(config_lib.without_effect(config_lib.parse(changed(method)), keys))

    assert find("out") == ["mid.alpha", "multi_head.heads"]
    assert find("tree") == ["out.masks_per_layer", "mid.alpha"]
    assert find("baseline") == keys[1:]


def test_rivals_use_the_keys_of_heads_that_they_share():
    keys = ["mid.head_width", "mid.beta", "pull_push.projection_pool", "model.drop_block_size"]

    def idle(method, **values):
        return set(config_lib.without_effect(config_lib.parse(changed(method, **values)), keys))

    assert idle("baseline") == set(keys)
    assert idle("auxiliary") == set(keys) - {"mid.head_width"}
    assert idle("predsim") == {"mid.beta", "model.drop_block_size"}
    assert idle("baseline", model__drop_block=0.1) == set(keys) - {"model.drop_block_size"}
    assert config_lib.without_effect(config_lib.Config(), ["hsic.beta"]) == {
        "hsic.beta": "method baseline"
    }


@pytest.mark.parametrize("method", ["baseline", "out+kernel", "tree", "auxiliary", "mid+predsim"])
def test_heads_are_not_computed_anew_where_none_is_read_inside_of_its_layer(method):
    key = "model.remat_heads"
    assert config_lib.without_effect(config_lib.parse(changed(method)), [key]) == {
        key: f"method {method}"
    }


def test_heads_that_are_read_inside_of_their_layers_can_be_computed_anew():
    for method in ("mid", "pull_push", "mid+auxiliary"):
        config = config_lib.parse(changed(method))
        assert not config_lib.without_effect(config, ["model.remat_heads"])


def test_without_effect_finds_what_other_optimizers_and_schedules_leave_out():
    keys = ["momentum", "nesterov", "decay_epochs", "decay_factor", "weight_decay"]
    config = config_lib.parse(changed(optimizer__name="lion", schedule="cosine"))
    assert config_lib.without_effect(config, keys) == {
        "momentum": "optimizer lion",
        "nesterov": "optimizer lion",
        "decay_epochs": "schedule cosine",
        "decay_factor": "schedule cosine",
    }
    assert config_lib.without_effect(config_lib.Config(), keys) == {}


@pytest.mark.parametrize(
    ("method", "values", "data", "key"),
    [
        ("baseline", {"batch_size": 100}, (99, 10, (8, 8, 1)), "batch_size"),
        ("baseline", {"top5": True}, (999, 5, (8, 8, 1)), "top5"),
        ("baseline", {"data__cutout": 9}, (999, 10, (8, 12, 3)), "data.cutout"),
        (
            "out+pull_push",
            {"pull_push__representation": "std"},
            (999, 10, (28, 28, 1)),
            "pull_push.representation",
        ),
        (
            "pull_push",
            {"pull_push__input_representation": "std"},
            (999, 10, (1, 1, 3)),
            "pull_push.input_representation",
        ),
    ],
)
def test_contradictions_with_the_data_are_refused(method, values, data, key):
    config = config_lib.parse(changed(method, **values))
    message = refused(config_lib.check_against_data, config, *data)
    assert message.startswith(f"config.{key} = ") and "cifar10" in message


def test_data_that_just_suffice_are_accepted():
    config = config_lib.parse(changed("out+mid", batch_size=100, top5=True, data__cutout=8))
    config_lib.check_against_data(config, 100, 6, (8, 8, 1))


def test_the_networks_are_those_of_the_models_with_as_many_stages():
    assert set(config_lib.MODEL_STAGES) == set(MODELS)
    for name, stages in config_lib.MODEL_STAGES.items():
        assert len(create_model(name, 10).stages) == stages
    assert config_lib.MODEL_LAYERS == {
        "vgg16": 13,
        "resnet18": 1 + 2 * 8,
        "resnet32": 1 + 2 * 15,
        "resnet101": 1 + 3 * 33,
    }


OWN = {"model__name": "net.py:make"}


@pytest.mark.parametrize(
    ("method", "values", "key", "expected"),
    [
        ("tree", OWN, "method", "another with net.py:make: tree splits the stages"),
        ("kernel", OWN, "kernel.layers", "such as **/Conv_*"),
        ("mid", OWN | {"model__then": "BatchNorm_*"}, "model.then", "model.layers is empty"),
        ("mid", OWN | {"model__sha256": "abc"}, "model.sha256", "64 hexadecimal digits"),
        ("mid", {"model__name": "net.py:"}, "model.name", "FILE.py:FUNCTION"),
        ("mid", {"model__name": "vgg"}, "model.name", "did you mean vgg16?"),
        ("mid", {"model__layers": "*"}, "model.layers", "empty with vgg16"),
        ("mid", {"model__then": "*"}, "model.then", "empty with vgg16"),
        ("out", {"model__split_at": "*"}, "model.split_at", "empty with vgg16"),
        ("kernel", {"kernel__layers": "*"}, "kernel.layers", "empty with vgg16"),
        ("auxiliary", OWN, "model.layers", "whose outputs method auxiliary takes"),
        (
            "predsim",
            OWN | {"predsim__local_only": True},
            "model.layers",
            "at which the gradient stops",
        ),
    ],
)
def test_keys_of_a_network_of_ones_own(method, values, key, expected):
    message = refused(config_lib.parse, changed(method, **values))
    assert message.startswith(f"config.{key} = ") and expected in message


def test_a_network_of_ones_own_leaves_the_keys_of_ours_idle():
    values = {"model__dropout": 0.0, "model__norm_groups": 3, "kernel__layers": "Conv_*"}
    keys = ["model.width", "model.layers", "model.then", "model.split_at", "kernel.stages"]

    def idle(method):
        config = config_lib.parse(changed(method, **OWN, **values))
        return list(config_lib.without_effect(config, keys))

    assert idle("out") == ["model.width", "model.layers", "model.then", "kernel.stages"]
    assert idle("mid+kernel") == ["model.width", "model.split_at", "kernel.stages"]
