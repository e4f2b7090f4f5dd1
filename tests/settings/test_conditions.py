"""How conditions and attacks are written, and what is refused."""

import pytest
from helpers.known_keys import KNOWN_KEYS, keys_of
from helpers.refusals import refusal_of

from kdplatform.settings.project import dump_yaml, load_project
from kdplatform.settings.schema import AttackConfig, ConditionConfig, flatten
from kdplatform.settings.words import plain_text

TEXT = "pgd20: attack=pgd, eps=8/255, steps=20; dark: corruption=contrast, severity=5"


def load(text: str) -> dict[str, ConditionConfig]:
    return load_project("digits", {"evaluation.conditions": text}).evaluation.conditions


def test_conditions_are_named_attacks_and_corruptions(tmp_path: object) -> None:
    conditions = load(TEXT)
    assert list(conditions) == ["dark", "pgd20"]
    assert conditions["pgd20"].as_attack == AttackConfig(eps=8 / 255, steps=20)
    assert conditions["dark"].as_attack is None
    assert conditions["dark"].severity == 5
    assert load("none") == {}


def test_they_stay_the_same_as_text_and_as_a_file(tmp_path: object) -> None:
    project = load_project("digits", {"evaluation.conditions": TEXT})
    text = plain_text(flatten(project)["evaluation.conditions"])
    assert load(text) == project.evaluation.conditions
    path = f"{tmp_path}/mine.yaml"
    with open(path, "w") as file:
        file.write(dump_yaml(project))
    assert load_project(path) == project


def test_they_are_in_no_key() -> None:
    assert keys_of(load_project("digits", {"evaluation.conditions": TEXT})) == KNOWN_KEYS


def test_what_matters_of_a_condition_is_what_it_does() -> None:
    attack = load("x: attack=pgd, eps=8/255")["x"].matters()
    assert attack == load("x: attack=pgd")["x"].matters()
    assert attack.keys().isdisjoint({"corruption", "severity"})
    assert load("x: corruption=contrast")["x"].matters() == {
        "corruption": "contrast",
        "severity": 3,
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x: attack=pgd, eps=2", "x: eps='2': input should be less than or equal to 1"),
        ("x: attack=pgd, eps=9/0", "x: eps='9/0': input should be a valid number"),
        ("x: attack=pgd, epz=2", "x: unknown field 'epz'; known: eps, steps, step_size, norm"),
        ("x: attack=bim", "x: attack='bim': input should be 'pgd' or 'fgsm'"),
        ("x", "x: neither attack nor corruption is given; allowed: one of them"),
        ("x: attack=pgd, corruption=contrast", "x: both attack and corruption is given"),
        ("x: attack=pgd; x: attack=fgsm", "a condition is given twice"),
        ("x: attack=pgd, attack=fgsm", "x: a field is given twice"),
        (
            "; ".join(f"x{i}: corruption=contrast" for i in range(31)),
            "31 conditions are given; allowed: at most 30",
        ),
        ("clean: attack=pgd", "'clean' is no name of a condition; allowed: letters, digits, _ . -"),
        ("a/b: attack=pgd", "'a/b' is no name of a condition"),
        ("x: attack=fgsm, steps=20", "x: steps=20 is not allowed with attack='fgsm', which is one"),
        ("x: attack=pgd, severity=4", "x: severity=4 is not allowed without corruption"),
        ("x: corruption=contrast, norm=2", "x: norm='2' is not allowed without attack"),
        ("x: attack", "x: 'attack' is not field=value, such as attack=pgd"),
    ],
)
def test_a_condition_that_means_nothing_is_refused(text: str, message: str) -> None:
    line = refusal_of(load, text)
    assert line.startswith(f"evaluation.conditions={text!r} is not allowed: {message}"), line


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"eps": "1.5"}, "distillation.eps='1.5' is not allowed; allowed: number >= 0 and <= 1"),
        ({"eps": "8/x"}, "distillation.eps='8/x' is not allowed; allowed: number >= 0 and <= 1"),
        ({"norm": "1"}, "distillation.norm='1' is not allowed; allowed: inf | 2"),
        ({"form": "trades", "attack": "fgsm"}, "attack='fgsm' is not allowed with form='trades'"),
        ({"form": "trades", "clean_weight": ".5"}, "clean_weight=0.5 is not allowed with form='tr"),
        ({"beta": "3"}, "beta=3 is not allowed with form='at'; allowed: with form='trades'"),
        ({"base": "crckd"}, "base='crckd' is no method of logits; allowed: "),
        ({"base": "cist", "temperature": "3"}, "temperature=3 is not allowed with base='cist'"),
        ({"base_fields": "views=2", "base": "mlkd"}, "base_fields='views=2' is not allowed"),
    ],
)
def test_an_attack_that_means_nothing_is_refused(fields: dict[str, str], message: str) -> None:
    overrides = {f"distillation.{name}": value for name, value in fields.items()}
    line = refusal_of(load_project, "digits", {"method": "adversarial", **overrides})
    assert message in line, line


def test_a_distance_may_be_written_as_levels_of_255() -> None:
    words = {"method": "adversarial", "distillation.eps": "4/255"}
    fields = flatten(load_project("digits", words))
    assert fields["distillation.eps"] == 4 / 255
    assert plain_text(fields["distillation.eps"]) == "4/255"
    assert plain_text(0.25) == "0.25"
