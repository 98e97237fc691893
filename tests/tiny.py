"""Small runs for tests: digits, a VGG-16 four to thirty-two filters wide."""

from collab_jax import config as config_lib

ALL_TERMS = "out+mid+pull_push+kernel"


def tiny_config(method=ALL_TERMS, **overrides):
    """Two epochs of five steps, with all that a run can have turned on."""
    recipe = config_lib.recipe(
        method,
        {
            "name": "tiny",
            "epochs": 2,
            "batch_size": 64,
            "learning_rate": 0.02,
            "decay_epochs": (1,),
            "data.name": "digits",
            "data.train_examples": 320,
            "data.validation": 100,
            "data.flip": False,
            "data.label_noise": 0.1,
            "model.width": 0.0625,
            "model.classifier_width": 16,
            "mid.head_width": 4,
            "pull_push.projection_width": 4,
            "log.tensorboard": False,
            **{name.replace("__", "."): value for name, value in overrides.items()},
        },
    )
    return config_lib.parse(recipe)
