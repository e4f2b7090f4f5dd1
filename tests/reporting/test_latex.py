"""A page as LaTeX: tables and figures for a paper, in which no name is a command."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

from kdplatform.reporting.latex import latex_text, render_latex
from kdplatform.reporting.page import Page, Picture, Section
from kdplatform.reporting.report_table import Table
from kdplatform.study.findings import Finding


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("50% of $x_1$ & #SC", r"50\% of \$x\_1\$ \& \#SC"),
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        (
            "a<b>c|d~e^f",
            r"a\textless{}b\textgreater{}c\textbar{}d\textasciitilde{}e\textasciicircum{}f",
        ),
        ("97.1 ± 0.2, T²", r"97.1 $\pm$ 0.2, T\textsuperscript{2}"),
        ("two\nlines", "two lines"),
        ("猫\u202e", r"\textbackslash{}u732b\textbackslash{}u202e"),
        ("café", "café"),
    ],
)
def test_text_is_no_command(text: str, shown: str) -> None:
    assert latex_text(text) == shown


def test_a_page_is_sections_tables_and_figures() -> None:
    words = pd.DataFrame([["DS_1", "97.10", "2"]], columns=["arm", "%", "p"])
    table = Table("table1", "Table 1", words, words, [("", 1), ("#SC", 2)], ["In %."])
    section = Section(
        "Classes",
        findings=[Finding("worse", "f got worse: 95%.")],
        tables=[table],
        pictures=[Picture("figure1", "Figure 1", Figure(), "Over T.")],
        parts=[Section("Inner", ["text"])],
    )
    text = render_latex(Page("Study", "5 seeds", [section]))
    for part in (
        "\\section{Classes}",
        "\\item f got worse: 95\\%.",
        "\\multicolumn{2}{c}{\\#SC}",
        "DS\\_1 & 97.10 & 2 \\\\",
        "\\caption{Table 1}",
        "\\label{tab:table1}",
        "{\\footnotesize In \\%.}",
        "\\includegraphics[width=\\linewidth]{figure1.png}",
        "\\caption{Figure 1. Over T.}",
        "\\subsection{Inner}",
    ):
        assert part in text
    assert text.index("\\begin{longtable}") < text.index("DS\\_1") < text.index("\\end{longtable}")
