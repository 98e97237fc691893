"""Peak arithmetic of NVIDIA's cards, from its data sheets: dense, without structured sparsity."""

__all__ = ["PRECISIONS", "peak_flops"]

PRECISIONS = {
    "float32 highest": ("float32", "highest"),
    "float32": ("float32", "default"),
    "bfloat16": ("bfloat16", "default"),
}
"""The type of the convolutions and JAX's matmul precision, by name.

In float32 at default precision XLA rounds factors to TF32 where the card has it."""

# TFLOP/s: float32, TF32, bfloat16 with float32 sums; None: the card has none. First match counts.
_CARDS: tuple[tuple[str, float, float | None, float | None], ...] = (
    ("H100 PCIe", 51.2, 378.0, 756.0),
    ("H100 NVL", 60.0, 417.5, 835.5),
    ("H100", 66.9, 494.7, 989.4),
    ("H200 NVL", 60.0, 417.5, 835.5),
    ("H200", 66.9, 494.7, 989.4),
    ("A100", 19.5, 156.0, 312.0),
    ("A10G", 31.2, 62.5, 125.0),
    ("L40S", 91.6, 183.0, 362.0),
    ("L4", 30.3, 60.0, 121.0),
    ("RTX 5090", 104.8, 104.8, 209.5),
    ("RTX 4090", 82.6, 82.6, 165.2),
    ("RTX 3090 Ti", 40.0, 40.0, 80.0),
    ("RTX 3090", 35.6, 35.6, 71.0),
    ("RTX 2080 Ti", 13.4, None, None),
    ("V100", 15.7, None, None),
)


def peak_flops(device_kind: str, precision: str) -> float | None:
    """The most FLOP/s that a card does.

    Args:
      device_kind: JAX's name of it.
      precision: a name in `PRECISIONS`.

    Returns:
      None for a card that is not listed, and for bfloat16 where it has no units for that.
    """
    for name, single, tf32, bfloat16 in _CARDS:
        if f" {name.lower()} " in f" {device_kind.lower().replace('-', ' ')} ":
            found = {"float32 highest": single, "float32": tf32 or single, "bfloat16": bfloat16}
            value = found[precision]
            return None if value is None else value * 1e12
    return None
