"""What each method costs: planned for GPUs that need not be there, and measured on this machine.

python -m collab_jax.benchmark plan --output FILE
python -m collab_jax.benchmark held --output FILE
python -m collab_jax.benchmark collectives --output FILE
python -m collab_jax.benchmark step --output FILE
python -m collab_jax.benchmark gpu OUT
"""

from collab_jax.benchmark.gpus import GPU, GPUS

__all__ = ["GPU", "GPUS"]
