"""The cards of a model: their forms, and that nothing is claimed that was not measured."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from kdplatform.predictions import Predictions
from kdplatform.reporting.cards.annex_iv import annex_iv
from kdplatform.reporting.cards.every_eval_ever import evaluation_record, record
from kdplatform.reporting.cards.facts import CardFacts
from kdplatform.reporting.cards.hugging_face import card_body, metadata, model_card
from kdplatform.reporting.cards.loss_statement import loss_statement
from kdplatform.reporting.cards.short import LONGEST, run_card, version_card
from kdplatform.reporting.cards.sources import card_of_sides, cards_of_study, slug
from kdplatform.reporting.cards.write import write_cards
from kdplatform.settings.gates import GateFile, Gates
from kdplatform.study.classes import ClassWise
from kdplatform.study.gate_metrics import gate_metrics
from kdplatform.study.gates import judge_gate
from kdplatform.study.metrics import REFERENCES
from kdplatform.study.provenance import Provenance, Source
from kdplatform.study.study import NDS, TEACHER, Model, Study, distilled_arm

EXAMPLES = 2000
DS = distilled_arm(4)
SEX = np.array(["f", "m"])[np.arange(EXAMPLES) % 2]


def table(f: float, m: float, seed: int) -> Predictions:
    labels = np.arange(EXAMPLES) // 2 % 2
    right = np.random.default_rng(seed).random(EXAMPLES) < np.where(SEX == "f", f, m)
    prediction = np.where(right, labels, 1 - labels)
    frame = {"id": np.arange(EXAMPLES), "label": labels, "prediction": prediction, "sex": SEX}
    return Predictions.of(pd.DataFrame(frame))


def study(scores: Mapping[str, float] | None = None, *, attributes: bool = True) -> Study:
    arms = {
        TEACHER: {0: Model("t" * 32, table(0.95, 0.84, 1))},
        NDS: {0: Model("n" * 32, table(0.9, 0.9, 2))},
        DS: {0: Model("d" * 32, table(0.85, 0.95, 3), scores or {})},
    }
    return Study("adult", ("<=50K", ">50K"), arms, ("sex",) if attributes else ())


def facts(own: Study | None = None, *, rules: dict[str, Any] | None = None) -> CardFacts:
    own = own or study()
    gate = None
    if rules is not None:
        file = GateFile(Path("gates.yaml"), "ab" * 32, Gates(rules=rules))
        gate = judge_gate(file, own, ClassWise(own), gate_metrics(own.attributes, REFERENCES))
    sources = [Source("t" * 32, "p" * 64, "w" * 64, "t" * 32)], [Source("d" * 32, "q" * 64)]
    rests_on = Provenance(sources, own.any_table.digest, "no gate was given", gate)
    settings = {"Student": "mlp, epochs: 3", "Distillation": "kd | <b>bold</b>"}
    return cards_of_study(own, "table", "resnet20", settings, {DS: rests_on})[DS]


def test_a_model_card_is_read_by_the_hubs_own_library() -> None:
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(model_card(facts()))
    assert card.data.base_model == "resnet20"
    assert "knowledge-distillation" in card.data.tags
    results = {result.metric_name: result for result in card.data.eval_results}
    accuracy = results["test/accuracy"]
    own = study().arms[DS][0].test
    assert accuracy.metric_value == pytest.approx(own.accuracy)
    assert (accuracy.task_type, accuracy.dataset_split) == ("tabular-classification", "test")
    low, high = accuracy.metric_args["interval_95"]
    assert low < own.accuracy < high
    women = results["accuracy of sex f"]
    assert women.metric_value == pytest.approx(own.correct[SEX == "f"].mean())
    assert women.metric_args == {
        "split": "test", "attribute": "sex", "group": "f", "examples": 1000
    }  # fmt: skip


def test_the_cards_body_leads_with_who_got_worse() -> None:
    body = "\n".join(card_body(facts()))
    found = body.index("sex f got worse")
    assert found < body.index("sex m got better") < body.index("## Metrics")
    assert "predictions SHA-256 " + "p" * 64 + "; weights SHA-256 " + "w" * 64 in body


def test_names_of_the_users_are_text_in_every_card() -> None:
    own = facts()
    for text in (model_card(own), loss_statement(own), annex_iv(own)):
        body = text.partition("---\n\n")[2] if text.startswith("---") else text
        assert "<b>" not in body
        assert r"kd \| \<b\>bold\</b\>" in text


def test_a_loss_statement_tells_lost_gained_and_open_apart() -> None:
    text = loss_statement(facts())
    parts = dict(zip(*[iter(_sections(text))] * 2, strict=True))
    assert "| sex | f |" in parts["Lost"]
    assert "| sex | m |" in parts["Preserved or gained"]
    assert "test/accuracy" in parts["Undecided"].replace("\\", "")
    assert "None were stated: no gate was given." in parts["Preservation targets"]
    for kind in ("uncertainty", "boundary behaviour", "privacy", "safety", "diversity"):
        assert f"- {kind}: not measured" in parts["Not measured"]
    assert parts["Why the remaining losses are acceptable"].strip().startswith("Not stated.")


def test_a_loss_statement_has_intersections_and_what_holm_leaves_open() -> None:
    own = study()
    half = np.array(["old", "young"])[np.arange(EXAMPLES) // 4 % 2]
    arms = {
        arm: {0: replace(m[0], test=replace(m[0].test, columns=m[0].test.columns.assign(age=half)))}
        for arm, m in own.arms.items()
    }
    made = facts(Study("adult", own.class_names, arms, ("sex", ("sex", "age"))))
    parts = dict(zip(*[iter(_sections(loss_statement(made)))] * 2, strict=True))
    assert r"| sex \& age | f \& old |" in parts["Lost"]
    assert ":26:" not in loss_statement(made)
    assert "even if the group's own interval excludes 0" in parts["Undecided"]


def test_the_library_of_a_model_is_named_where_it_is_known() -> None:
    assert metadata(facts())["library_name"] == "pytorch"
    assert "library_name" not in metadata(replace(facts(), library=""))


def _sections(text: str) -> list[str]:
    parts = text.split("\n## ")[1:]
    return [piece for part in parts for piece in part.split("\n", 1)]


def test_what_was_measured_is_not_called_unmeasured() -> None:
    text = loss_statement(facts(study({"test/ece": 0.1})))
    assert "uncertainty: not measured" not in text


@pytest.mark.parametrize(
    ("limit", "said"),
    [(0.5, "The losses keep the thresholds: gate passed"), (0.02, "do not keep the thresholds")],
)
def test_losses_are_acceptable_by_thresholds_alone(limit: float, said: str) -> None:
    text = loss_statement(facts(rules={"worst_group_drop": {"max": limit}}))
    assert said in text
    assert f"worst\\_group\\_drop max {limit}" in text


def test_without_attributes_groups_are_said_to_be_unmeasured() -> None:
    own = facts(study(attributes=False))
    assert "Not measured: no attribute was given." in model_card(own)
    assert "groups: not measured, no attribute was given" in loss_statement(own)
    assert "Not measured: no attribute was given." in annex_iv(own)


def test_annex_iv_has_the_sections_that_it_asks_for() -> None:
    text = annex_iv(facts())
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert [title.split()[1] for title in titles] == [*(f"2({c})" for c in "abcdefgh"), "4"]
    assert "it is no declaration of conformity" in text
    assert "### Robustness\n\nNot measured." in text


REQUIRED = (
    *("schema_version", "evaluation_id", "retrieved_timestamp", "source_metadata", "model_info"),
    *("eval_library", "evaluation_results"),
)


def test_an_evaluation_record_has_what_its_schema_requires() -> None:
    found = record(facts())
    assert found.keys() >= set(REQUIRED)
    assert found["schema_version"] == "0.3.0"
    assert {"source_type", "source_organization_name", "evaluator_relationship"} <= found[
        "source_metadata"
    ].keys()
    assert {"name", "version"} <= found["eval_library"].keys()
    assert {"name", "id", "additional_details"} <= found["model_info"].keys()
    assert {"deployment_type", "model_availability"} <= found["model_info"][
        "additional_details"
    ].keys()
    for result in found["evaluation_results"]:
        needed = {"evaluation_name", "source_data", "metric_config", "score_details"}
        assert result.keys() >= needed
        config = result["metric_config"]
        assert {"lower_is_better", "min_score", "max_score"} <= config.keys()
        assert np.isfinite(result["score_details"]["score"])
        details = result["score_details"]["details"]
        assert all(isinstance(value, str) for value in details.values())


def test_an_evaluation_record_has_intervals_as_uncertainty() -> None:
    [accuracy] = [
        result
        for result in json.loads(evaluation_record(facts()))["evaluation_results"]
        if result["evaluation_name"] == "test/accuracy"
    ]
    interval = accuracy["score_details"]["uncertainty"]["confidence_interval"]
    assert interval["lower"] < accuracy["score_details"]["score"] < interval["upper"]
    assert interval["confidence_level"] == 0.95
    assert accuracy["metric_config"]["lower_is_better"] is False


def test_an_evaluation_record_is_valid_for_the_schemas_own_package() -> None:
    types = pytest.importorskip(
        "every_eval_ever.eval_types", reason="every-eval-ever 0.3 needs Python 3.12"
    )
    types.EvaluationLog.model_validate(record(facts()))


def test_a_registry_keeps_as_much_of_a_card_as_it_can() -> None:
    body = [f"line {number} {'x' * 90}" for number in range(100)]
    text = version_card("r" * 32, body)
    assert len(text) <= LONGEST
    assert text.endswith(f"The whole card: artifact `card/README.md` of run {'r' * 32}.")
    assert version_card("r" * 32, body[:3]) == "\n".join(body[:3])


def test_a_model_without_a_study_has_a_card_of_its_run() -> None:
    tags = {"kd.role": "teacher", "kd.project": "adult"}
    metrics = {"test/accuracy": 0.9, "fairness/sex/eod": 0.125, "epoch/loss": 1.0}
    text = "\n".join(run_card("Teacher mlp seed 0", tags, {"teacher.model": "mlp"}, metrics))
    assert "| fairness/sex/eod | 0.125 |" in text
    assert "epoch" not in text
    assert "- teacher.model: mlp" in text


def test_all_cards_are_written(tmp_path: Path) -> None:
    written = write_cards(facts(), tmp_path / "card")
    assert [path.name for path in written] == [
        *("README.md", "distillation_loss_statement.md", "every_eval_ever.json", "annex_iv.md")
    ]
    header = (tmp_path / "card" / "README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(header) == json.loads(json.dumps(metadata(facts())))


def test_a_slug_is_a_name_that_hubs_take() -> None:
    assert slug("adult/√ DS kd T=4") == "adult-DS-kd-T-4"
    assert slug("***") == "model"


def test_a_side_of_a_comparison_is_not_said_to_be_distilled_from_the_other() -> None:
    arms = {TEACHER: {0: Model("", table(0.95, 0.84, 1))}, DS: {0: Model("", table(0.9, 0.9, 3))}}
    own = Study("pair", ("<=50K", ">50K"), arms, ("sex",), settings={"A": "a.csv", "B": "b.csv"})
    side = card_of_sides(own, TEACHER, DS, Provenance(([], []), "d" * 32, "", None), [])
    assert "Compared with" in annex_iv(side)
    assert "Distilled from" not in annex_iv(side)
    known = metadata(side)
    assert "base_model" not in known
    assert known["tags"] == ["fairness", "kdplatform"]
