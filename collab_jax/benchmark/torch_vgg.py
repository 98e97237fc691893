"""The VGG-16 baseline's train step in PyTorch, to be timed beside ours."""

from collections.abc import Callable
from typing import Any

from collab_jax.errors import UserError

__all__ = ["classifier", "torch_step", "vgg16"]


def torch_step(
    *, batch_size: int, image_size: int, num_classes: int, width: float, classifier_width: int
) -> Callable[[], None]:
    """Builds the model and a batch.

    Args:
      batch_size: B.
      image_size: side of the images, in pixels.
      num_classes: m.
      width: multiplies the number of filters.
      classifier_width: units of the two hidden layers.

    Returns:
      A function that runs one step: forward, backward, SGD with momentum and weight decay.

    Raises:
      UserError: if PyTorch is missing.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            "step: --against torch takes PyTorch; expected the extra `bench`: "
            "pip install 'collab-jax[bench]'"
        ) from None
    model = vgg16(
        image_size=image_size,
        num_classes=num_classes,
        width=width,
        classifier_width=classifier_width,
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(batch_size, 3, image_size, image_size)
    labels = torch.randint(0, num_classes, (batch_size,))
    loss_of = torch.nn.CrossEntropyLoss()

    def step() -> None:
        optimizer.zero_grad()
        loss = loss_of(model(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def vgg16(*, image_size: int, num_classes: int, width: float, classifier_width: int) -> Any:
    """VGG-16 with batch norm as a PyTorch module, for square images of that side."""
    from torch import nn  # pyright: ignore[reportMissingImports]

    layers: list[Any] = []
    channels, side = 3, image_size
    groups = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
    for number, group in enumerate(groups, start=1):
        for base in group:
            filters = max(1, round(base * width))
            convolution = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(filters), nn.ReLU(inplace=True)]
            channels = filters
        if side // 2 >= (2 if number < len(groups) else 1):
            layers.append(nn.MaxPool2d(2))
            side //= 2
    return nn.Sequential(*layers, *classifier(channels, classifier_width, num_classes))


def classifier(channels: int, width: int, num_classes: int) -> list[Any]:
    """Average pooling and the three-layer classifier."""
    from torch import nn  # pyright: ignore[reportMissingImports]

    layers: list[Any] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for _ in range(2):
        layers += [nn.Linear(channels, width), nn.ReLU(inplace=True), nn.Dropout(0.5)]
        channels = width
    return [*layers, nn.Linear(channels, num_classes)]
