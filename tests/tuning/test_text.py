"""What the tuner says at its end."""

from dataclasses import replace

import numpy as np
import optuna
import pandas as pd
import toy

from kdplatform.tuning.confirmation import Confirmed, compared
from kdplatform.tuning.front import Outcome
from kdplatform.tuning.measures import Measure
from kdplatform.tuning.results import Found, optuna_page
from kdplatform.tuning.selection import Choice
from kdplatform.tuning.space import Point
from kdplatform.tuning.text import confirmation_text, unsearched_note
from kdplatform.tuning.trials import RESULT


def arm(title: str, label: str, accuracies: list[float], gaps: list[float]) -> Confirmed:
    found = {"accuracy": accuracies, "unfairness": gaps, "worst_group_accuracy": np.nan}
    scores = pd.DataFrame(found).rename_axis("seed")
    choice = Choice(Point.of(toy.config()), (label,), Outcome(0.9, 0.1))
    return Confirmed(title, choice, scores, scores)


def said(other: Confirmed) -> str:
    baseline = arm("own", "baseline", [0.90, 0.92, 0.91], [0.10, 0.11, 0.13])
    assert baseline.choice is not None
    arms = compared([baseline, other], baseline.choice)
    text = confirmation_text(toy.MEASURE, arms, [3, 4, 5])
    [line] = [line for line in text.splitlines() if line.startswith("other against")]
    return line


def test_a_difference_has_its_interval_and_its_p() -> None:
    line = said(arm("other", "front", [0.96, 0.97, 0.968], [0.101, 0.109, 0.128]))
    assert "accuracy +5.60 points [4.29, 6.91], p 0.003: higher" in line
    assert ": undecided" in line


def test_seeds_that_differ_by_the_same_amount_are_undecided() -> None:
    line = said(arm("other", "front", [0.88, 0.90, 0.89], [0.10, 0.11, 0.13]))
    assert "accuracy -2.00 points for every seed, which leaves no interval: undecided" in line


def test_a_search_that_is_all_grid_says_so() -> None:
    # The project's temperatures are 1, 4 and 10.
    assert "come first, 3 points for 3 trials" in unsearched_note(toy.config(tuning__trials="3"))
    assert unsearched_note(toy.config(tuning__trials="4")) == ""
    assert unsearched_note(toy.config(tuning__trials="3", tuning__grid="false")) == ""


def test_a_space_of_one_point_is_no_search() -> None:
    point = {"tuning__temperature": "4,4", "tuning__alpha": "0.5,0.5"}
    assert "the space is one point, T=4 alpha=0.5;" in unsearched_note(toy.config(**point))
    assert unsearched_note(toy.config(**point, tuning__epochs="2,3")) == ""


def test_intervals_of_fresh_seeds_end_where_percentages_do() -> None:
    baseline = arm("own", "baseline", [0.2, 0.99], [0.05, 0.9])
    assert baseline.choice is not None
    arms = compared([baseline, arm("other", "front", [0.99, 0.2], [0.9, 0.02])], baseline.choice)
    text = confirmation_text(toy.MEASURE, arms, [3, 4])
    assert "59.50 [0.00, 100.00]" in text
    assert "47.50 [0.00, 100.00]" in text
    assert "accuracy +0.00 points [-100.00, 100.00]" in text
    assert "accuracy gap color -1.50 points [-100.00, 100.00]" in text


def test_the_reference_point_is_no_larger_than_unfairness_can_be() -> None:
    def point(unfairness: float, measure: Measure = toy.MEASURE) -> float:
        nds = replace(toy.REFERENCES, nds=Outcome(0.9, unfairness))
        return nds.reference_point(measure).unfairness

    assert (point(0.2), point(0.6), point(0.0)) == (0.4, 1.0, 1.0)
    counts, pairs = (replace(toy.MEASURE, unfairness=name) for name in ("n_sc", "individual"))
    assert (point(1.5, counts), point(2.0, counts), point(0.0, counts)) == (2.0, 2.0, 2.0)
    assert (point(3.0, pairs), point(0.0, pairs)) == (6.0, 1.0)


def test_names_on_optunas_page_are_text() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], study_name="</title><script>")
    for value in (0.1, 0.2):
        result = {RESULT: {"accuracy": value, "unfairness": value}}
        study.add_trial(optuna.create_trial(values=[value, value], user_attrs=result))
    measure = replace(toy.MEASURE, attribute="<a href='http://x'>y</a>")
    page = optuna_page(Found(toy.config(), measure, toy.REFERENCES, study, []))
    assert "<title>&lt;/title&gt;&lt;script&gt;</title>" in page
    assert "\\u0026lt;a href" in page or "&lt;a href" in page
    assert "\\u003ca href" not in page
