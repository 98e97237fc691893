"""PyTorch's VGG-16 and ResNet-18 in turn with ours, on one device."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from collab_jax.benchmark.gpu.measure import timed_rows
from collab_jax.benchmark.gpu.peaks import PRECISIONS
from collab_jax.benchmark.gpu.programs import Absent, Program, prepare
from collab_jax.benchmark.torch_vgg import classifier, vgg16
from collab_jax.benchmark.workload import Case
from collab_jax.errors import reason

__all__ = ["beside_torch", "resnet18"]


def beside_torch(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Times baseline's programs and PyTorch's in turn.

    PyTorch's images and labels lie on the device as its step takes them: it neither gathers nor
    augments nor normalises, as ours does.

    Args:
      cell: `case`, `precisions`, `chunk`, `repeats`, `compile` and `without_cuda`, whether
        PyTorch may run on the CPU (a dry run).

    Returns:
      `rows`, one for each program; one that fails has its `error`.

    Raises:
      Absent: without PyTorch, or where it finds no CUDA.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise Absent("PyTorch is not installed") from None
    if not torch.cuda.is_available() and not cell["without_cuda"]:
        raise Absent(f"PyTorch {torch.__version__} finds no CUDA device")
    case, failed = Case(**cell["case"]), []
    programs: list[Program] = []
    for precision in cell["precisions"]:
        for program in prepare(
            replace(case, dtype=PRECISIONS[precision][0]), precision, cell["chunk"]
        ):
            program.name = f"JAX {precision}, {program.figures['dispatch']}"
            programs.append(program)
    for autocast in (False, True):
        for compiled in (False, True) if cell["compile"] else (False,):
            name = f"PyTorch {'bf16 autocast' if autocast else 'TF32'}"
            name += ", torch.compile" if compiled else ""
            run = _steps(case, cell["chunk"], autocast=autocast, compiled=compiled)
            try:
                run()
            except Exception as error:
                failed.append({"name": name, "error": reason(error)})
                continue
            programs.append(Program(name, cell["chunk"], run, {}))
    rows = timed_rows(programs, case.batch_size, cell["repeats"])
    return {"rows": rows + failed, "torch": torch.__version__}


def _steps(case: Case, count: int, *, autocast: bool, compiled: bool) -> Callable[[], None]:
    """Train steps of PyTorch's network, channels last, waited for at the end."""
    import torch  # pyright: ignore[reportMissingImports]

    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    device: Any = "cuda" if torch.cuda.is_available() else "cpu"
    network = {"vgg16": vgg16, "resnet18": resnet18}[case.model]
    model: Any = network(
        image_size=case.image_size,
        num_classes=case.num_classes,
        width=case.overrides.get("model.width", 1.0),
        classifier_width=case.overrides.get("model.classifier_width", 4096),
    ).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    side = case.image_size
    images = torch.randn(case.batch_size, 3, side, side, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, case.num_classes, (case.batch_size,), device=device)
    forward = torch.compile(model) if compiled else model

    def run() -> None:
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, dtype=torch.bfloat16, enabled=autocast):
                loss = torch.nn.functional.cross_entropy(forward(images), labels)
            loss.backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def resnet18(*, image_size: int, num_classes: int, width: float, classifier_width: int) -> Any:
    """ResNet-18 with a 3x3 stem and no max pooling, and the three-layer classifier."""
    from torch import nn  # pyright: ignore[reportMissingImports]

    def convolution(inputs: int, outputs: int, size: int, stride: int) -> list[Any]:
        layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
        return [layer, nn.BatchNorm2d(outputs)]

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            first = convolution(inputs, outputs, 3, stride)
            self.main = nn.Sequential(*first, nn.ReLU(), *convolution(outputs, outputs, 3, 1))
            same = inputs == outputs and stride == 1
            shortcut = [] if same else convolution(inputs, outputs, 1, stride)
            self.shortcut = nn.Sequential(*shortcut)

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.main(x) + self.shortcut(x))

    filters = [max(1, round(64 * 2**stage * width)) for stage in range(4)]
    layers: list[Any] = [*convolution(3, filters[0], 3, 1), nn.ReLU()]
    channels = filters[0]
    for stage, outputs in enumerate(filters):
        for block in range(2):
            layers.append(Block(channels, outputs, 2 if stage and not block else 1))
            channels = outputs
    return nn.Sequential(*layers, *classifier(channels, classifier_width, num_classes))
