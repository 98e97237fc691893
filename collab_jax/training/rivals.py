"""A config's rivals of the collaborations: their lines in the table of terms."""

from collab_jax.config import Config
from collab_jax.config import terms as terms_of
from collab_jax.models import LocalHeads, Projections
from collab_jax.objective import HSIC, Auxiliary, DeCov, PredSim, RDrop, SelfDistillation, Term

__all__ = ["rival_terms"]


def rival_terms(
    config: Config, num_classes: int, heads: LocalHeads, projections: Projections
) -> list[Term]:
    """The rivals that a config's method names.

    Args:
      config: a valid config.
      num_classes: m.
      heads: the local classifiers of its terms.
      projections: the projections of its terms.

    Returns:
      Their terms, in the order of `RIVALS`.
    """
    auxiliary, teaching, local = config.auxiliary, config.self_distillation, config.predsim
    table: dict[str, Term] = {
        "auxiliary": Auxiliary(
            weight=auxiliary.weight, num_classes=num_classes, layers=auxiliary.layers, heads=heads
        ),
        "self_distillation": SelfDistillation(
            weight=teaching.weight,
            num_classes=num_classes,
            layers=teaching.layers,
            temperature=teaching.temperature,
            alpha=teaching.alpha,
            hint=teaching.hint,
            heads=heads,
        ),
        "predsim": PredSim(
            weight=local.weight,
            num_classes=num_classes,
            beta=local.beta,
            local_only=local.local_only,
            heads=heads,
            projections=projections,
        ),
        "r_drop": RDrop(weight=config.r_drop.weight),
        "hsic": HSIC(
            weight=config.hsic.weight,
            num_classes=num_classes,
            beta=config.hsic.beta,
            sigma=config.hsic.sigma,
        ),
        "decov": DeCov(weight=config.decov.weight),
    }
    enabled = terms_of(config.method)
    return [term for name, term in table.items() if name in enabled]
