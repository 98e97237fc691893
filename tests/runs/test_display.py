"""What the terminal shows at 80 columns, and what stands for it where nothing is shown."""

import inspect
import io

import pytest
from rich.console import Console

from collab_jax.runs import summary
from collab_jax.runs.checkpoint import Checkpointer, Checkpoints, NoCheckpointer
from collab_jax.runs.display import Display, NoDisplay, TerminalDisplay, note
from collab_jax.runs.metrics_log import Log, MetricsLog, NoLog


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(width):
    """The bar's last state and the one while it compiles."""
    terminal = Terminal()
    console = Console(file=terminal, width=width, force_terminal=True, color_system=None)
    display = TerminalDisplay(78_000, 0, bar=True, console=console)
    display.start()
    means: dict[str, float | None] = {"loss": 12.3456, "top1_error": 90.123}
    display.update(39_000, note(100, means, 1234.5))
    with display.first_step():
        display._progress.refresh()
        compiling = terminal.getvalue().splitlines()[-1]
    display.stop()
    return compiling, terminal.getvalue().rstrip("\x1b[?25h\n").splitlines()[-1]


@pytest.mark.parametrize("width", [80, 120])
def test_times_are_whole(width):
    compiling, bar = shown(width)
    assert "50% epoch 100  loss 12.346  error 90.1%  1,234 img/s 0:00:00, " in bar
    assert "compiling the train step (0 s so far) 0:00:00, -:--:-- left" in compiling
    for line in (compiling, bar):
        assert len(line.rpartition("\x1b[2K")[2]) <= width


def test_long_rows_are_aligned_on_a_terminal():
    terminal = Terminal()
    console = Console(file=terminal, width=80, force_terminal=True, color_system=None)
    data = "folder:my_images: 240 train, 60 test, 32 x 32 x 3, 3 classes, on the device"
    TerminalDisplay(10, 0, bar=True, console=console).table("title", {"run directory": data})
    first, second = terminal.getvalue().splitlines()[1:]
    assert max(map(len, (first, second))) < 80 and first.startswith(" run directory  folder:my")
    assert second == " " * 16 + "on the device"


def test_lines_of_epochs_align():
    def line(epoch, error):
        train = {"split": "train", "loss": 1.0, "images_per_second": None, "skipped_steps": 0}
        return summary.epoch_line([{**train, "top1_error": error}], epoch, 100)

    assert line(3, 5.0) == "epoch   3/100  loss 1.0000  train error  5.00%"
    assert len(line(3, 5.0)) == len(line(100, 15.0))


def test_without_a_terminal_long_rows_and_brackets_are_written_as_they_are():
    file = io.StringIO()
    display = TerminalDisplay(10, 0, bar=True, console=Console(file=file, soft_wrap=True))
    path = "/a" * 100
    display.table("title", {"run directory": path, "data": "[bold] 8 x 8"})
    display.line("epoch 1/2  [/red]")
    lines = [
        "title", f" run directory  {path}", " data           [bold] 8 x 8", "epoch 1/2  [/red]"
    ]  # fmt: skip
    assert file.getvalue().splitlines() == lines


def test_a_note_leaves_out_what_is_not_known():
    assert note(2, {"loss": None, "top1_error": None}, None) == "epoch 2"


@pytest.mark.parametrize(
    "protocol, null, real",
    [
        (Display, NoDisplay, TerminalDisplay),
        (Log, NoLog, MetricsLog),
        (Checkpoints, NoCheckpointer, Checkpointer),
    ],
)
def test_what_does_nothing_has_the_methods_of_what_does(protocol, null, real):
    names = [name for name in vars(protocol) if not name.startswith("_")]
    assert {name for name in vars(null) if not name.startswith("_")} <= {*names, "lines"}
    for name in names:
        expected = list(inspect.signature(getattr(protocol, name)).parameters)
        for one in (null, real):
            assert list(inspect.signature(getattr(one, name)).parameters) == expected
    with pytest.raises(AttributeError):
        _ = null().wriet
