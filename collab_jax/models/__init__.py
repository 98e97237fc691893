"""VGG and ResNet backbones with the hierarchical-dropout classifier, and their training parts."""

from collab_jax.models.branches import branched, rescale_gradient, split_branches
from collab_jax.models.classifier import HierarchicalDropoutClassifier
from collab_jax.models.dropping import drop_block, spatial_dropout
from collab_jax.models.heads import ByLayer, Chosen, Hints, LocalHeads, Pair, Projections
from collab_jax.models.network import Network
from collab_jax.models.registry import (
    MODELS,
    create_model,
    init_variables,
    run_once,
    stage_kernels,
)
from collab_jax.models.resnet import resnet18, resnet32, resnet101
from collab_jax.models.torch_weights import from_torch
from collab_jax.models.vgg import vgg16

__all__ = [
    "MODELS",
    "ByLayer",
    "Chosen",
    "HierarchicalDropoutClassifier",
    "Hints",
    "LocalHeads",
    "Network",
    "Pair",
    "Projections",
    "branched",
    "create_model",
    "drop_block",
    "from_torch",
    "init_variables",
    "rescale_gradient",
    "resnet18",
    "resnet32",
    "resnet101",
    "run_once",
    "spatial_dropout",
    "split_branches",
    "stage_kernels",
    "vgg16",
]
