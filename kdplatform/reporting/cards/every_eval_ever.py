"""An evaluation record in the schema of Every Eval Ever, version 0.3.0 (arXiv:2606.14516)."""

import json
from typing import Any

from kdplatform.reporting.cards.facts import CardFacts, Fact, known
from kdplatform.study.provenance import now

SCHEMA_VERSION = "0.3.0"
_INTERVAL = (
    "over examples, and over seeds if there are several; a two-way bootstrap for group fairness"
)


def evaluation_record(facts: CardFacts) -> str:
    """Returns the record of a model as JSON."""
    content = json.dumps(record(facts), indent=2, allow_nan=False, ensure_ascii=False)
    return f"{content}\n"


def record(facts: CardFacts) -> dict[str, Any]:
    """Returns the record of a model as plain values."""
    made = now() if facts.provenance is None else facts.provenance.made
    stamp = str(int(made.timestamp()))
    model_id = f"kdplatform/{facts.slug}"
    own = facts.versions
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": f"{facts.dataset}/{model_id}/{stamp}",
        "evaluation_timestamp": made.isoformat(),
        "retrieved_timestamp": stamp,
        "source_metadata": {
            "source_name": "kdplatform",
            "source_type": "evaluation_run",
            "source_organization_name": "not stated",
            "evaluator_relationship": "other",
            "additional_details": {"reference": facts.reference, "seeds": str(facts.seeds)},
        },
        "eval_library": {
            "name": "kdplatform",
            "version": own["kdplatform"],
            "additional_details": {k: v for k, v in own.items() if k != "kdplatform"},
        },
        "model_info": {
            "name": facts.name,
            "id": model_id,
            "additional_details": {
                "deployment_type": "unknown",
                "model_availability": "unknown",
                **({"base_model": facts.base_model} if facts.base_model else {}),
                **{name: str(value) for name, value in facts.settings.items()},
            },
        },
        "evaluation_results": [
            *(_result(facts, fact) for fact in facts.facts),
            *_group_results(facts),
        ],
    }


def _result(facts: CardFacts, fact: Fact) -> dict[str, Any]:
    least, most = fact.bounds
    details = {"attribute": fact.attribute} if fact.attribute else {}
    if known(fact.change.estimate):
        details["change_against_reference"] = f"{fact.change.estimate:.6g}"
    if known(fact.change.low) and known(fact.change.high):
        details["change_interval_95"] = f"{fact.change.low:.6g} to {fact.change.high:.6g}"
    score: dict[str, Any] = {"score": float(fact.value.estimate), "details": details}
    if known(fact.value.low) and known(fact.value.high):
        score["uncertainty"] = {
            "confidence_interval": {
                "lower": float(fact.value.low),
                "upper": float(fact.value.high),
                "confidence_level": 0.95,
                "method": _INTERVAL,
            },
            "num_samples": facts.examples,
        }
    return {
        "evaluation_name": fact.metric,
        "source_data": _data(facts),
        "metric_config": {
            "metric_id": fact.metric.replace("/", "."),
            "metric_name": fact.metric,
            "lower_is_better": fact.better <= 0,
            "score_type": "continuous",
            "min_score": least,
            "max_score": "Infinity" if most is None else most,
        },
        "score_details": score,
    }


def _group_results(facts: CardFacts) -> list[dict[str, Any]]:
    rows = [] if facts.groups.empty else facts.groups.to_dict("records")
    return [
        {
            "evaluation_name": f"accuracy of {row['attribute']} {row['group']}",
            "source_data": _data(facts),
            "metric_config": {
                "metric_id": "group_accuracy",
                "metric_name": "accuracy of a group",
                "lower_is_better": False,
                "score_type": "continuous",
                "min_score": 0.0,
                "max_score": 1.0,
            },
            "score_details": {
                "score": float(row["value_b"]),
                "details": {
                    "attribute": str(row["attribute"]),
                    "group": str(row["group"]),
                    "examples": str(int(row["n"])),
                    "verdict_against_reference": str(row["verdict"]),
                },
            },
        }
        for row in rows
        if row["kind"] != "group within class" and known(row["value_b"])
    ]


def _data(facts: CardFacts) -> dict[str, Any]:
    return {
        "dataset_name": facts.dataset,
        "source_type": "other",
        "additional_details": {
            "split": "test",
            "examples": str(facts.examples),
            "digest_of_ids_and_labels": facts.digest,
        },
    }
