"""A model card in the form of Hugging Face: metadata with `model-index`, then Markdown.

The form is that of https://github.com/huggingface/hub-docs/blob/main/modelcard.md.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from kdplatform.reporting.cards.facts import CardFacts, Fact, known
from kdplatform.reporting.cards.markdown import (
    FACT_HEADER,
    GROUP_HEADER,
    escaped,
    fact_rows,
    group_rows,
    points,
    table,
)


def model_card(facts: CardFacts) -> str:
    """Returns the README.md of a model."""
    header = yaml.safe_dump(metadata(facts), sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{header}---\n\n" + "\n".join(card_body(facts)) + "\n"


def metadata(facts: CardFacts) -> dict[str, Any]:
    """Returns the metadata of the card."""
    return {
        **({"library_name": facts.library} if facts.library else {}),
        "tags": [
            *(["knowledge-distillation"] if facts.base_model else []),
            "fairness",
            "kdplatform",
        ],
        **({"base_model": facts.base_model} if facts.base_model else {}),
        "pipeline_tag": facts.task,
        "metrics": ["accuracy"],
        "model-index": [
            {
                "name": facts.slug,
                "results": [
                    {
                        "task": {"type": facts.task},
                        "dataset": {
                            "name": facts.dataset,
                            "type": facts.dataset,
                            "split": "test",
                            "args": {"examples": facts.examples, "digest": facts.digest},
                        },
                        "metrics": [*map(_metric, facts.facts), *_group_metrics(facts)],
                    }
                ],
            }
        ],
    }


def _metric(fact: Fact) -> dict[str, Any]:
    arguments: dict[str, Any] = {"split": "test"}
    if fact.attribute:
        arguments["attribute"] = fact.attribute
    interval = [fact.value.low, fact.value.high]
    if all(map(known, interval)):
        arguments["interval_95"] = [float(end) for end in interval]
    kind = "accuracy" if fact.metric == "test/accuracy" else fact.metric
    value = float(fact.value.estimate)
    return {"type": kind, "name": fact.title, "value": value, "args": arguments}


def _group_metrics(facts: CardFacts) -> list[dict[str, Any]]:
    rows = [] if facts.groups.empty else facts.groups.to_dict("records")
    found = []
    for row in rows:
        if row["kind"] == "group within class" or not known(row["value_b"]):
            continue
        arguments = {
            "split": "test",
            "attribute": str(row["attribute"]),
            "group": str(row["group"]),
            "examples": int(row["n"]),
        }
        name = f"accuracy of {row['attribute']} {row['group']}"
        found.append(
            {"type": "accuracy", "name": name, "value": float(row["value_b"]), "args": arguments}
        )
    return found


def card_body(facts: CardFacts) -> list[str]:
    """Returns the Markdown below the metadata, line by line."""
    seeds = f"{facts.seeds} models, one per seed" if facts.seeds > 1 else "one model"
    return [
        f"# {escaped(facts.name)}",
        "",
        f"{escaped(facts.role)}, compared with {escaped(facts.reference)}: {seeds}, measured on "
        f"{facts.examples} test examples of {escaped(facts.dataset)}.",
        "",
        "## What was found",
        "",
        *points(facts.findings, "No difference is shown."),
        *_gate(facts),
        "## Metrics",
        "",
        "Fractions, not per cent. A change is the model's value minus that of the reference.",
        "",
        *table(FACT_HEADER, fact_rows(facts.facts)),
        "## Groups",
        "",
        *_groups(facts),
        "## How it came to be",
        "",
        *points((f"{name}: {value}" for name, value in facts.settings.items()), "Not recorded."),
        "## Limits",
        "",
        *points([*facts.cautions, *_LIMITS], ""),
        "## What this rests on",
        "",
        *points(_origin(facts), ""),
    ]


_LIMITS = (
    "The numbers hold for the test examples named here, and not for other populations.",
    "Intended use, licence and environmental cost were not measured and are not stated here.",
)


def _gate(facts: CardFacts) -> list[str]:
    if not facts.gate_sentence:
        return []
    return ["## Gate", "", escaped(facts.gate_sentence), ""]


def _groups(facts: CardFacts) -> list[str]:
    if facts.groups.empty:
        return ["Not measured: no attribute was given.", ""]
    rows: list[Mapping[str, object]] = [
        {str(k): v for k, v in row.items()}
        for row in facts.groups.to_dict("records")
        if row["kind"] != "group within class"
    ]
    return table(GROUP_HEADER, group_rows(dict(row) for row in rows))


def _origin(facts: CardFacts) -> list[str]:
    if facts.provenance is not None:
        return facts.provenance.lines()
    packages = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    return [f"Examples: digest {facts.digest}", f"Made by {packages}"]
