"""The paper's memory comparison: baseline, tree with four heads, four dropout predictions.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Sec. III-A:
ResNet-101 with an input of 64 x 3 x 64 x 64 takes 8.77, 13.16 and 8.78 GB to train.

Command:
    python -m collab_jax.study --study configs/studies/memory.py --out runs/memory

Memory needs no training: XLA plans the train step for the paper's card, which need not be there
(extra `plan`). Three compilations; time not measured.
"""

from collab_jax.study import Program, Study, paper


def get_study() -> Study:
    """One plan of three methods."""
    title = "Training memory of ResNet-101, 64 x 3 x 64 x 64"
    plan = Program(
        name="plan_resnet101",
        title=title,
        module="collab_jax.benchmark",
        arguments=("plan", "--paper-case", "--gpus", "rtx2080ti", "--output", "{output}"),
        product=".svg",
        paper=paper.published()["memory_resnet101_batch64_3x64x64_gb"],
    )
    return Study(title=title, programs=(plan,))
