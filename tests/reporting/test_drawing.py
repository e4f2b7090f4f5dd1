"""Figures show names as they are written, whatever matplotlib was told elsewhere."""

import os
import subprocess
import sys

import matplotlib as mpl
import pandas as pd
import pytest
import torch

from kdplatform.reporting import figures
from kdplatform.reporting.drawing import figure_names, figure_png, figure_text, names_by_number

# Formulas that matplotlib cannot read, and letters that its font does not have.
NAMES = ["$low_$", "Ba$$in", "猫", "هر", "a\x1b[31m\u202eb\nc", "n" * 300, "n" * 299 + "m"]
SHOWN = [
    *("$low_$", "Ba$$in", "class #2", "هر", r"a\x1b[31m\u202eb\nc", "class #5", "class #6"),
]  # fmt: skip


def test_names_stand_as_they_are_or_by_number() -> None:
    assert figure_names(NAMES, "class") == SHOWN
    assert figure_names(["n" * 300], "class") == ["n" * 23 + "…"]


def test_the_legend_has_the_names_that_stand_by_number() -> None:
    assert names_by_number(["cat", "猫"], "class") == (
        "Names shown by number, because they lack glyphs or room: class #1: 猫."
    )
    assert names_by_number(["cat", "dog"], "class") == ""


def test_a_title_keeps_what_the_font_has() -> None:
    assert figure_text("T=4: 猫") == "T=4: \\u732b"


def drawings() -> dict[str, figures.Drawing]:
    accuracies = pd.DataFrame({"NDS": [0.1] * 7, "DS": [0.2] * 7}, index=NAMES)
    groups = pd.DataFrame(
        [(a, g, 0.5, "DS") for a in ("$a_$", "色") for g in NAMES],
        columns=["attribute", "group", "accuracy", "role"],
    )
    matrix = pd.DataFrame([[0] * 7] * 7)
    return {
        "class": figures.class_accuracy_figure(accuracies, {}, "$x_$"),
        "group": figures.group_accuracy_figure(groups, "$x_$"),
        "disagreement": figures.disagreement_figure({"NDS": matrix}, NAMES, "$x_$"),
    }


@pytest.mark.filterwarnings("error:Glyph")
@pytest.mark.parametrize("kind", ["class", "group", "disagreement"])
def test_no_name_is_a_formula(kind: str) -> None:
    figure = drawings()[kind].figure()
    figure_png(figure)
    texts = {text.get_text() for axes in figure.axes for text in axes.get_xticklabels()}
    texts |= {text.get_text() for axes in figure.axes for text in axes.get_yticklabels()}
    assert set(SHOWN) <= {text.replace("group", "class") for text in texts}
    if kind == "group":
        assert [axes.get_xlabel() for axes in figure.axes] == ["$a_$", "attribute #1"]


def test_a_contact_sheet_names_its_rows_as_text() -> None:
    inputs, labels = torch.zeros(7, 1, 2, 2, dtype=torch.uint8), torch.arange(7)
    sheet = figures.contact_sheet(inputs, labels, NAMES, "$x_$")
    figure_png(sheet)
    [axes] = sheet.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == SHOWN


def test_the_style_of_a_notebook_is_not_that_of_figures() -> None:
    sheet = (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.arange(2), ["a", "b"], "t")
    plain = figure_png(figures.contact_sheet(*sheet))
    with mpl.rc_context({"figure.facecolor": "black", "text.usetex": True, "font.size": 30}):
        assert figure_png(figures.contact_sheet(*sheet)) == plain


def test_a_screen_that_is_not_there_is_not_needed() -> None:
    code = "from kdplatform.reporting.figures import Drawing; import matplotlib; print('drawn')"
    screen = {"MPLBACKEND": "module://no_such_package.backend_inline"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **screen}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("drawn\n", "")


def test_a_screen_that_is_there_stays_the_users() -> None:
    code = "import kdplatform.reporting, matplotlib; print(matplotlib.get_backend())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "MPLBACKEND": "svg"}, capture_output=True
    )
    assert done.stdout == b"svg\n"
