"""The report as files: one page without network, everything from data escaped."""

import base64
import gzip
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from kdplatform.experiments.report import report_text
from kdplatform.reporting.gallery import Changed, Gallery, Shown
from kdplatform.reporting.page import Page, Section, render
from kdplatform.reporting.report_table import Table
from kdplatform.reporting.study_page import Report, build_report, write_report
from kdplatform.study.fairness import Effort
from kdplatform.study.findings import Finding
from kdplatform.study.study import Model, Study
from kdplatform.study.verdicts import Verdict
from kdplatform.text import visible

FEW = Effort(draws=50, permutations=20)
MOST_BYTES = 5_000_000
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

    VOID = frozenset({"meta", "img", "br", "input"})

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


def test_what_is_missing_is_printed_with_what_was_found(report: Report) -> None:
    assert report.gaps[0] == f"Missing: {HOSTILE}."
    lines = report_text(report).splitlines()
    assert lines[lines.index(report.page.subtitle) + 1] == report.gaps[0]


def test_what_was_found_is_printed_first(report: Report) -> None:
    assert 0 < len(report.findings) <= 7
    first = report.findings[0]
    assert report_text(report).startswith(
        f"WARNING: {first.sentence}" if first.kind == "warning" else f"- {visible(first.sentence)}"
    )


def test_findings_are_printed_and_verdicts_are_counted(report: Report) -> None:
    printed = report_text(report)
    assert visible(report.findings[-1].sentence) in printed
    tally = Counter(claim.verdict for claim in report.claims)
    assert f"{tally[Verdict.UNDECIDED]} undecided" in printed
    undecided = [c.claim for c in report.claims if c.verdict is Verdict.UNDECIDED]
    assert not [claim for claim in undecided if claim in printed]


def test_the_chapters_stand_in_the_order_of_reading(report: Report) -> None:
    assert [section.title for section in report.page.sections] == [
        "What was found",
        "Who is in the data",
        "Groups",
        "Classes",
        "Curves over T",
        "Examples that changed",
        "Every verdict and its test",
        "The paper's claims",
        "Methods and caveats",
    ]
    assert len(report.page.sections[0].findings) <= 7
    assert [section.folded for section in report.page.sections] == [False] * 6 + [True] * 3


def test_one_file_per_table_and_figure(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {f"figure{i}" for i in range(1, 6)} <= {
        name.split("_")[0] for name in names if name.endswith(".png")
    }
    # Of the pairs of arms, that which the page shows first has pictures.
    assert "class_changes_ds_t_4_nds.png" in names
    assert "class_changes_ds_t_10_nds.png" not in names
    assert "class_changes_ds_t_10_nds.csv" in names
    assert {"table1", "table2", "table3", "table4", "table5"} <= {n.split("_")[0] for n in names}
    assert {"claims.csv", "runs.csv", "classes.csv", "report.html", "report.md"} <= names
    runs = pd.read_csv(folder / "runs.csv")
    assert len(runs) == 6 * 2
    assert set(pd.read_csv(folder / "classes.csv")["reference"]) == {"Teacher", "NDS"}


def test_the_page_needs_no_network(folder: Path, outline: Outline) -> None:
    text = (folder / "report.html").read_text()
    assert not re.search(r"https?://|url\(|@import", text)
    assert len(text.encode()) < MOST_BYTES
    sources = [attrs["src"] for tag, attrs in outline.tags if tag == "img"]
    assert len(sources) == 2
    for source in sources:
        assert source
        header, _, data = source.partition(",")
        assert header == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    assert not [tag for tag, _ in outline.tags if tag in ("link", "iframe", "object")]
    assert [attrs.get("id") for tag, attrs in outline.tags if tag == "script"] == [
        *("page-data", "page-bundle", None)
    ]


def test_no_script_runs_but_the_pages_own(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'; img-src data: blob:;")
    own, bundle = re.findall(r"'sha256-([^']*)'", policy)
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert own == base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    [packed] = re.findall(r'id="page-bundle">([^<]*)<', text)
    unpacked = gzip.decompress(base64.b64decode(packed))
    assert bundle == base64.b64encode(hashlib.sha256(unpacked).digest()).decode()
    assert unpacked.startswith(b"/**\n* plotly.js")
    assert b"MIT license" in unpacked[:200]


def test_what_comes_from_data_is_shown_and_never_markup(folder: Path, outline: Outline) -> None:
    assert "<script>alert" not in (folder / "report.html").read_text()
    assert HOSTILE in "".join(outline.text)


def test_every_place_of_a_page_is_escaped() -> None:
    words = pd.DataFrame({HOSTILE: [HOSTILE], "second": [HOSTILE]})
    table = Table("t", HOSTILE, words, words, [(HOSTILE, 2)], [HOSTILE])
    example = Changed(
        HOSTILE,
        Shown(cells=[(HOSTILE, HOSTILE)]),
        HOSTILE,
        HOSTILE,
        HOSTILE,
        {HOSTILE: HOSTILE},
        models=1,
        pairs=2,
    )
    inner = Section(
        HOSTILE,
        findings=[Finding(HOSTILE, HOSTILE)],
        gallery=Gallery([example], [HOSTILE], {HOSTILE: 1}, [HOSTILE]),
    )
    section = Section(
        *(HOSTILE, [HOSTILE], [HOSTILE], [HOSTILE], [table], [table]),
        parts=[inner],
        switch=HOSTILE,
        tally=[(HOSTILE, 1)],
    )
    text = render(Page(HOSTILE, HOSTILE, [section], HOSTILE), {})
    assert HOSTILE not in text
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;") >= 30


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
        "falls with softer outputs",
        "evelling down",
        "difference of base rates",
        "by chance",
        "Undecided means",
        "What these seeds can detect",
    ):
        assert threat in words


def test_equal_studies_give_equal_tables(small: Study, report: Report) -> None:
    again = build_report(hostile(small), FEW)
    for name, frame in report.frames.items():
        pd.testing.assert_frame_equal(frame, again.frames[name])


def test_a_study_of_one_seed_says_so(synthetic: Callable[..., Study]) -> None:
    one = build_report(synthetic(temperatures=(1.0, 4.0), seeds=(0,), examples=200), FEW)
    claims = next(s for s in one.page.sections if s.title == "The paper's claims")
    assert dict(claims.tally)["undecided"] == len(one.claims) > 0
    [warning] = one.page.sections[0].warnings
    assert "There is one seed" in warning


def test_a_study_without_attributes_teachers_or_nds_still_reports(
    synthetic: Callable[..., Study], tmp_path: Path
) -> None:
    full = synthetic(temperatures=(1.0, 4.0), seeds=(0, 1), examples=200, attributes=())
    bare = {arm: models for arm, models in full.arms.items() if arm.temperature is not None}
    report = build_report(Study("bare", full.class_names, bare), FEW)
    assert {claim.verdict for claim in report.claims} == {Verdict.UNDECIDED}
    assert {claim.remark for claim in report.claims} == {"no Teacher is there", "no NDS is there"}
    write_report(report, tmp_path)
    assert "The project names no attribute" in (tmp_path / "report.html").read_text()
