"""The report as files: one page without network, everything from data escaped."""

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from kdplatform.experiments.report import report_text
from kdplatform.reporting.page import Page, Section, render
from kdplatform.reporting.report_table import Table
from kdplatform.reporting.study_page import Report, build_report, write_report
from kdplatform.study.fairness import Effort
from kdplatform.study.study import Model, Study
from kdplatform.study.verdicts import Verdict
from kdplatform.text import visible

FEW = Effort(draws=50, permutations=20)
HOSTILE = '<script>alert("x")</script>&'


def hostile(study: Study) -> Study:
    """Names of groups, classes, runs and settings that would be markup."""

    def renamed(model: Model) -> Model:
        columns = model.test.columns.rename(columns={"texture": HOSTILE})
        renamed = columns.replace({HOSTILE: {"dots": HOSTILE}})
        return Model(HOSTILE, replace(model.test, columns=renamed))

    arms = {arm: {s: renamed(m) for s, m in models.items()} for arm, models in study.arms.items()}
    names = (HOSTILE, *study.class_names[1:])
    return Study(
        HOSTILE,
        names,
        arms,
        ("color", HOSTILE),
        missing=(HOSTILE,),
        left_out=(HOSTILE,),
        settings={HOSTILE: HOSTILE},
        scale_by_t2=False,
        space=HOSTILE,
    )


@pytest.fixture(scope="module")
def small(synthetic: Callable[..., Study]) -> Study:
    return synthetic(temperatures=(1.0, 4.0, 10.0, 20.0), seeds=(0, 1), examples=300)


@pytest.fixture(scope="module")
def report(small: Study) -> Report:
    return build_report(hostile(small), FEW)


@pytest.fixture(scope="module")
def folder(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report")
    write_report(report, place)
    return place


class Outline(HTMLParser):
    """What a page is made of; complains about tags that are not closed."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def outline(folder: Path) -> Outline:
    return Outline((folder / "report.html").read_text())


def test_what_is_missing_is_printed_with_the_verdicts(report: Report) -> None:
    assert report.gaps[0] == f"Missing: {HOSTILE}."
    lines = report_text(report).splitlines()
    assert lines[lines.index(report.page.subtitle) + 1] == report.gaps[0]


def test_what_was_found_is_printed_first(report: Report) -> None:
    assert 0 < len(report.findings) <= 7
    first = report.findings[0]
    assert report_text(report).startswith(
        f"WARNING: {first.sentence}" if first.kind == "warning" else f"- {visible(first.sentence)}"
    )


def test_one_file_per_table_and_figure(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {f"figure{i}" for i in range(1, 6)} == {
        name.split("_")[0] for name in names if name.endswith(".png")
    }
    assert {"table1", "table2", "table3", "table4", "table5"} <= {n.split("_")[0] for n in names}
    assert {"claims.csv", "runs.csv", "classes.csv", "report.html", "report.md"} <= names
    runs = pd.read_csv(folder / "runs.csv")
    assert len(runs) == 6 * 2
    assert set(pd.read_csv(folder / "classes.csv")["reference"]) == {"Teacher", "NDS"}


def test_the_page_needs_no_network(folder: Path, outline: Outline) -> None:
    text = (folder / "report.html").read_text()
    assert not re.search(r"https?://|url\(|@import", text)
    sources = [attrs["src"] for tag, attrs in outline.tags if tag == "img"]
    assert len(sources) == 5
    for source in sources:
        assert source
        header, _, data = source.partition(",")
        assert header == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    assert not [tag for tag, _ in outline.tags if tag in ("script", "link", "iframe")]


def test_what_comes_from_data_is_shown_and_never_markup(folder: Path, outline: Outline) -> None:
    text = (folder / "report.html").read_text()
    assert "<script" not in text
    assert HOSTILE in "".join(outline.text)


def test_every_place_of_a_page_is_escaped() -> None:
    words = pd.DataFrame({HOSTILE: [HOSTILE], "second": [HOSTILE]})
    table = Table("t", HOSTILE, words, words, [(HOSTILE, 2)], [HOSTILE])
    section = Section(HOSTILE, [HOSTILE], [HOSTILE], [HOSTILE], [table], [table])
    text = render(Page(HOSTILE, HOSTILE, [section], [(HOSTILE, 1)]), {})
    assert HOSTILE not in text
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 15


def test_headings_and_tables_have_an_order(outline: Outline) -> None:
    tags = [tag for tag, _ in outline.tags]
    assert tags.count("h1") == 1
    assert tags.index("h1") < tags.index("h2") < tags.index("h3")
    scopes = {attrs.get("scope") for tag, attrs in outline.tags if tag == "th"}
    assert {"col", "row", "colgroup"} <= scopes
    assert all(attrs.get("alt") for tag, attrs in outline.tags if tag == "img")
    assert any(attrs.get("name") == "viewport" for tag, attrs in outline.tags if tag == "meta")


def test_threats_stand_where_they_bite(outline: Outline) -> None:
    words = " ".join(outline.text)
    for threat in (
        "not multiplied by T²",
        "falls mechanically",
        "evelling down",
        "difference of base rates",
        "by chance",
        "Undecidable means",
        "What these seeds can detect",
    ):
        assert threat in words


def test_equal_studies_give_equal_tables(small: Study, report: Report) -> None:
    again = build_report(hostile(small), FEW)
    for name, frame in report.frames.items():
        pd.testing.assert_frame_equal(frame, again.frames[name])


def test_a_study_of_one_seed_says_so(synthetic: Callable[..., Study]) -> None:
    one = build_report(synthetic(temperatures=(1.0, 4.0), seeds=(0,), examples=200), FEW)
    assert dict(one.page.tally)["undecidable"] == len(one.claims) > 0
    [warning] = one.page.sections[0].warnings
    assert "One seed" in warning


def test_a_study_without_attributes_teachers_or_nds_still_reports(
    synthetic: Callable[..., Study], tmp_path: Path
) -> None:
    full = synthetic(temperatures=(1.0, 4.0), seeds=(0, 1), examples=200, attributes=())
    bare = {arm: models for arm, models in full.arms.items() if arm.temperature is not None}
    report = build_report(Study("bare", full.class_names, bare), FEW)
    assert {claim.verdict for claim in report.claims} == {Verdict.UNDECIDABLE}
    assert {claim.remark for claim in report.claims} == {"no Teacher is there", "no NDS is there"}
    write_report(report, tmp_path)
    assert "The project names no attribute" in (tmp_path / "report.html").read_text()
