"""The kept report's figures, computed once more by a program that shares no code with it."""

from pathlib import Path

import pytest
from recompute_report import compare

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def report():
    return (RESULTS / "small_data_report" / "report.md").read_text()


def test_the_kept_differences_are_what_another_program_finds(report):
    compared, wrong = compare(RESULTS / "reduced", report)
    assert compared > 100 and not wrong


@pytest.mark.parametrize(
    ("right", "off"),
    [
        ("-0.32<br>", "-0.31<br>"),
        ("[-1.10, +0.47]", "[-1.10, +0.48]"),
        ("p 0.323, ", "p 0.333, "),
        ("Holm 1.000<br>sign-flip p 0.4375", "Holm 0.990<br>sign-flip p 0.4375"),
        ("sign-flip p 0.4375", "sign-flip p 0.3750"),
        ("-0.32<br>[-1.10, +0.47]", ""),
        ("| 1,000 images | out+mid+pull_push | 22.89", "| 1,000 images | another | 22.89"),
    ],
)
def test_a_number_that_is_off_is_told(report, right, off):
    assert report.count(right)
    assert len(compare(RESULTS / "reduced", report.replace(right, off))[1]) >= 1
