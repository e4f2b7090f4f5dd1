"""A page as Markdown says what the page says; in neither is text taken for markup."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

from kdplatform.reporting.page import Page, Picture, Section, render, render_markdown
from kdplatform.reporting.report_table import Table
from kdplatform.study.findings import Finding


def page(cell: str = "97.10 ± 0.20") -> Page:
    shown = pd.DataFrame({"arm": ["DS T=4"], "accuracy": [cell]})
    table = Table("table1", "Table 1. Classes", shown, shown, notes=["In %."])
    empty = Table("table2", "Table 2. Nothing", shown.head(0), shown.head(0), notes=["No runs."])
    section = Section(
        "Classes",
        paragraphs=["What differs."],
        warnings=["One seed."],
        points=["first", "second"],
        tables=[table, empty],
        pictures=[Picture("figure1", "Figure 1", Figure(), "Accuracy over T.")],
        tally=[("supported", 2)],
    )
    return Page("Study small", "3 seeds", [section])


def test_a_page_is_headings_tables_lists_and_pictures() -> None:
    assert render_markdown(page()) == (
        "# Study small\n\n3 seeds\n\n## Classes\n\n**2 supported**\n\nWhat differs.\n\n"
        "- first\n- second\n\n> One seed.\n\n### Table 1. Classes\n\n"
        "| arm | accuracy |\n|---|---|\n| DS T=4 | 97.10 ± 0.20 |\n\n- In %.\n\n"
        "### Table 2. Nothing\n\n- No runs.\n\n"
        "### Figure 1\n\n![Figure 1](figure1.png)\n\nAccuracy over T.\n"
    )


def test_text_from_data_is_no_markup() -> None:
    text = render_markdown(page("a|b <img> [x](y)\n# z"))
    assert "| DS T=4 | a\\|b \\<img\\> \\[x\\](y) \\# z |" in text


def test_no_name_is_hidden_or_turns_its_line_around() -> None:
    hostile = "</td><script>x</script>\u202e\x1b[0m"
    shown = "&lt;/td&gt;&lt;script&gt;x&lt;/script&gt;\\u202e\\x1b[0m"
    html = render(page(hostile), {"figure1": b""})
    assert f"<td>{shown}</td>" in html
    assert "<script>x" not in html
    assert "\\<script\\>x\\</script\\>\\\\u202e\\\\x1b\\[0m" in render_markdown(page(hostile))


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a &lt; b ~c~ $d$", "a \\&lt; b \\~c\\~ \\$d\\$"),
        ("- no bullet", "\\- no bullet"),
        ("12. no list", "12\\. no list"),
        ("---", "\\---"),
        ("-0.50 (-1.00 to 2.00)", "-0.50 (-1.00 to 2.00)"),
        ("-", "-"),
    ],
)
def test_every_place_of_a_page_is_escaped(text: str, escaped: str) -> None:
    words = pd.DataFrame([[text]], columns=[text])
    table = Table("t", text, words, words, notes=[text])
    picture = Picture("figure_1", text, Figure(), text)
    inner = Section(text, findings=[Finding("worse", text)])
    section = Section(text, [text], [text], [text], [table], [table], [picture], parts=[inner])
    assert render_markdown(Page(text, text, [section])) == (
        f"# {escaped}\n\n{escaped}\n\n## {escaped}\n\n{escaped}\n\n"
        f"- {escaped}\n\n> {escaped}\n"
        + 2 * f"\n### {escaped}\n\n| {escaped} |\n|---|\n| {escaped} |\n\n- {escaped}\n"
        + f"\n### {escaped}\n\n![{escaped}](figure_1.png)\n\n{escaped}\n"
        + f"\n### {escaped}\n\n1. **worse**: {escaped}\n"
    )


def test_columns_of_one_name_are_told_apart_by_the_heading_above_them() -> None:
    shown = pd.DataFrame([["DS", "1", "2"]], columns=["arm", "p", "p"])
    groups = [("", 1), ("#SC", 1), ("#TC", 1)]
    text = render_markdown(
        Page("P", "s", [Section("S", tables=[Table("t", "T", shown, shown, groups)])])
    )
    assert "| arm | \\#SC: p | \\#TC: p |" in text
