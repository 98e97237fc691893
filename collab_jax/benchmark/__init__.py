"""What each method costs: planned for GPUs that need not be there, and measured on this machine.

```sh
python -m collab_jax.benchmark plan --output FILE         # FLOPs and memory of a step
python -m collab_jax.benchmark held --output FILE         # what is alive at the peak
python -m collab_jax.benchmark collectives --output FILE  # what several GPUs send each other
python -m collab_jax.benchmark step --output FILE         # seconds, and memory on the host
python -m collab_jax.benchmark gpu OUT                    # all of it on the GPU that is there
```
"""

from collab_jax.benchmark.gpus import GPU, GPUS

__all__ = ["GPU", "GPUS"]
