"""The losses once more, in float64 NumPy, term by term as the equations have them."""

import numpy as np

__all__ = [
    "collaborative",
    "consensus",
    "cosines",
    "hard",
    "intermediate",
    "kernel",
    "probabilities",
    "pull_push_parts",
    "similarity",
    "soft",
]


def log_softmax(logits, temperature):
    scaled = np.asarray(logits, np.float64) / temperature
    scaled = scaled - scaled.max(-1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))


def probabilities(y, classes):
    y = np.asarray(y)
    return np.eye(classes)[y] if y.dtype.kind in "iu" else y.astype(np.float64)


def hard(logits, y, temperature=1.0):
    return soft(logits, probabilities(y, logits.shape[-1]), temperature)


def soft(logits, targets, temperature=1.0):
    targets = np.asarray(targets, np.float64)
    log_prediction = log_softmax(logits, temperature)
    expected = targets != 0  # 0 log 0 is 0
    return -np.multiply(targets, log_prediction, where=expected, out=0 * targets).sum(-1)


def consensus(logits, temperature):
    logits = np.asarray(logits, np.float64)
    others = [np.delete(logits, h, axis=0).mean(0) for h in range(len(logits))]
    return np.exp(log_softmax(np.stack(others), temperature))


def collaborative(logits, y, temperature=2.0, alpha=0.5, scale_by_t2=False):
    targets = consensus(logits, temperature)
    factor = temperature**2 if scale_by_t2 else 1.0
    return np.mean(
        [
            alpha * hard(z, y) + (1 - alpha) * factor * soft(z, q, temperature)
            for z, q in zip(logits, targets, strict=True)
        ],
        axis=0,
    )


def intermediate(
    local_logits,
    y,
    temperature=2.0,
    alpha=0.05,
    beta=0.05,
    output_logits=None,
    scale_by_t2=False,
):
    views = [np.asarray(z, np.float64) for z in local_logits]
    if output_logits is not None:
        views.append(np.asarray(output_logits, np.float64))
    factor = temperature**2 if scale_by_t2 else 1.0
    losses = []
    for i in range(len(local_logits)):
        loss = alpha * hard(views[i], y, temperature)
        deeper = views[i + 1 :]
        if deeper:
            target = np.exp(log_softmax(np.mean(deeper, axis=0), temperature))
            loss = loss + beta * factor * soft(views[i], target, temperature)
        losses.append(loss)
    return np.stack(losses)


def cosines(vectors):
    count = len(vectors)
    lengths = [np.sqrt(np.sum(v**2)) for v in vectors]
    matrix = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            if lengths[i] > 0 and lengths[j] > 0:
                matrix[i, j] = vectors[i] @ vectors[j] / (lengths[i] * lengths[j])
    return matrix


def similarity(x, representation="auto", center="features"):
    x = np.asarray(x, np.float64)
    if x.ndim > 2:
        pixels = tuple(range(1, x.ndim - 1))
        several = x.shape[-1] > 1 and np.prod(x.shape[1:-1]) > 1
        deviation = {"auto": several, "std": True, "flatten": False}[representation]
        x = x.std(axis=pixels) if deviation else x.reshape(len(x), -1)
    if center == "features":
        x = x - x.mean(axis=1, keepdims=True)
    if center == "batch":
        x = x - x.mean(axis=0, keepdims=True)
    return cosines(x)


def pull_push_parts(features, inputs, y, pull, push, representation="auto", center="features"):
    """The two parts of each layer's loss: their difference is the loss, their sum its scale."""
    to_input = similarity(inputs, representation, center)
    to_label = similarity(y, center=center)
    own = [similarity(h, representation, center) for h in features]
    pulled = np.array([np.linalg.norm(s - to_label) for s in own])
    pushed = np.array([np.linalg.norm(s - to_input) for s in own])
    return np.asarray(pull) * pulled, np.asarray(push) * pushed


def kernel(weights):
    weights = np.asarray(weights, np.float64)
    rows = np.stack([weights[..., f].reshape(-1) for f in range(weights.shape[-1])])
    rows = (rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True)
    correlation = rows @ rows.T / rows.shape[1]
    return np.linalg.norm(correlation - np.diag(np.diag(correlation)))
