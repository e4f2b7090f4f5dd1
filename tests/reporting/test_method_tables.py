"""Methods side by side on the page of a report."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from helpers.synthetic_studies import SEEDS, Generator

from kdplatform.reporting.report_table import Table
from kdplatform.reporting.study_page import Report, build_report, claim_sentence
from kdplatform.roles import Role
from kdplatform.study.fairness import Effort
from kdplatform.study.metrics import SPEED
from kdplatform.study.study import Arm, Model, Study, distilled_arm, scored_model

FEW = Effort(draws=100, permutations=20)
SPEEDS = {"student": 300.0, "distilled": 200.0}


def with_speed(arm: Arm, models: dict[int, Model]) -> dict[int, Model]:
    speed = {SPEED: SPEEDS.get(arm.role.value, 100.0)}
    return {s: Model(m.run_id, m.test, {**m.scores, **speed}) for s, m in models.items()}


@pytest.fixture(scope="module")
def report(synthetic: Callable[..., Study]) -> Report:
    """Plain distillation at T = 4, rld 10 points better there, and cist as plain."""
    plain, generator = synthetic(temperatures=(4.0,), examples=400), Generator(400)
    make = partial(scored_model, calibrating=1.5)
    better, free = distilled_arm(4.0, "rld"), Arm(Role.DISTILLED, "cist")
    new = {
        arm: {
            s: make(f"{arm} {s}", generator.table(np.full((4, 3), rate), start + s)) for s in SEEDS
        }
        for arm, rate, start in ((better, 0.9, 20_000), (free, 0.8, 30_000))
    }
    arms = {arm: with_speed(arm, dict(own)) for arm, own in {**plain.arms, **new}.items()}
    return build_report(Study("two", plain.class_names, arms, ("color",)), FEW)


def table(report: Report, key: str) -> Table:
    return next(each for each in report.page.tables() if each.key == key)


def test_every_arm_has_a_row_with_what_it_is_held_against(report):
    frame = table(report, "methods").frame.set_index("arm")
    assert list(frame.index) == ["Teacher", "NDS", "DS kd T=4", "DS rld T=4", "DS cist"]
    assert list(frame["against"].dropna()) == ["DS kd T=4", "DS kd T=4"]
    better = frame.loc["DS rld T=4"]
    by_hand = better["accuracy"] - frame.loc["DS kd T=4", "accuracy"]
    assert better["test/accuracy_change"] == pytest.approx(by_hand)
    assert better["test/accuracy_change_low"] < by_hand < better["test/accuracy_change_high"]
    assert better["fairness/color/eod_by_parity"] > 0
    assert better["sc_expected_by_chance"] == pytest.approx(0.2)


def test_only_a_difference_that_is_shown_is_called_better(report):
    shown = table(report, "methods").shown
    # The first difference is that of accuracy.
    place = list(shown.columns).index("minus kd")
    words = dict(zip(shown[""], shown.iloc[:, place], strict=True))
    assert words["DS rld T=4"].endswith(") better")
    assert words["DS cist"].endswith(")")
    assert words["DS kd T=4"] == words["NDS"] == "-"


def test_training_time_is_relative_to_the_nds(report):
    frame = table(report, "methods").frame.set_index("arm")
    assert frame.loc["DS cist", "seconds"] == 1.5
    assert frame.loc["NDS", "seconds"] == 1.0
    assert np.isnan(frame.loc["Teacher", "seconds"])


def test_verdicts_are_sentences_with_estimate_and_interval(report):
    sentences = [claim_sentence(claim) for claim in report.of_methods]
    assert any(s.startswith("rld is more accurate than kd at T=4: supported (+") for s in sentences)
    claim = report.of_methods[0]
    without = replace(
        claim, interval=claim.interval._replace(low=np.nan, high=np.nan), remark="one"
    )
    assert claim_sentence(without).endswith(
        f"({100 * claim.interval.estimate:+.2f}, no interval; one)"
    )
    assert len(sentences) == len(table(report, "methods_verdicts").frame) == 2 * 8
    # The paper's claims are about T: a method without one has none.
    assert not any(claim.claim.startswith("cist") for claim in report.claims)
    [first] = [s for s in report.page.sections if s.title == "The paper's claims"]
    assert "not judged for cist" in first.paragraphs[1]


def test_accuracy_is_drawn_against_eod_and_the_worst_class(report):
    figures = {picture.key: picture.figure for picture in report.page.pictures()}
    for key in ("methods_worst_class", "methods_color"):
        [axes] = figures[key].axes
        assert len(axes.containers) == 5
        assert axes.get_ylabel() == "test accuracy, %"


def test_changes_against_plain_distillation_are_drawn_by_verdict(report):
    [chart] = [own for own in report.page.charts() if own.key == "methods_changes"]
    assert chart.zero
    assert not any(name.startswith("kd") for name in chart.names)
    assert [panel.title for panel in chart.panels] == [
        "accuracy, points",
        "worst-class accuracy, points",
        "EOD (color), points",
    ]
    frame = table(report, "methods_verdicts").frame
    for panel, words in zip(chart.panels, ("accurate", "worst class", "lower EOD"), strict=True):
        drawn = {series.name: np.isfinite(series.values).sum() for series in panel.series}
        verdicts = frame[frame["claim"].str.contains(words)]["verdict"].value_counts()
        names = {"better": "supported", "worse": "contradicted", "undecided": "undecided"}
        assert drawn == {name: verdicts.get(word, 0) for name, word in names.items()}


def test_one_method_alone_has_no_such_section(synthetic: Callable[..., Study]) -> None:
    study = synthetic(temperatures=(4.0,), examples=100, attributes=())
    report = build_report(study, FEW)
    assert not any(each.key.startswith("methods") for each in report.page.tables())
    assert report.of_methods == []
