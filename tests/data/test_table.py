import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.dataset_files import PEOPLE, people
from helpers.refusals import assert_refused

from kdplatform.data import Dataset, load_dataset
from kdplatform.data.table import Config


def load(folder: Path, table: pd.DataFrame | str | None = None, **fields: Any) -> Dataset:
    path = folder / "people.csv"
    if isinstance(table, str):
        path.write_text(table)
    else:
        (people() if table is None else table).to_csv(path, index=False)
    fields = {"file": str(path), "label": "income", "attributes": "sex,region"} | fields
    return load_dataset(Config(**fields), folder)


refused = partial(assert_refused, load)


def features(dataset: Dataset) -> torch.Tensor:
    """Returns the features of all rows in the order of the file."""
    splits = dataset.splits().values()
    inputs = torch.cat([torch.as_tensor(split.inputs) for split in splits])
    return inputs[np.argsort(np.concatenate([split.ids for split in splits]))]


def test_every_row_is_in_one_split_with_every_class_in_its_share(tmp_path: Path) -> None:
    dataset = load(tmp_path, val_fraction=0.2, test_fraction=0.3)
    ids = np.concatenate([split.ids for split in dataset.splits().values()])
    assert sorted(ids) == list(range(PEOPLE))
    assert dataset.class_names == ("<=50K", ">50K")
    for name, counts in (("train", [18, 12]), ("val", [7, 5]), ("test", [11, 7])):
        assert np.bincount(dataset.splits()[name].labels) == pytest.approx(counts, abs=1)
    expected = people()
    for split in dataset.splits().values():
        names = [dataset.class_names[label] for label in split.labels]
        assert names == expected["income"].iloc[split.ids].tolist()
        for attribute in dataset.attributes:
            assert split.columns[attribute].tolist() == expected[attribute].iloc[split.ids].tolist()


def test_numbers_are_standardised_by_the_training_rows_alone(tmp_path: Path) -> None:
    dataset = load(tmp_path)
    train = torch.as_tensor(dataset.train.inputs)
    assert train.dtype == torch.float32
    ages = people()["age"].astype(float).to_numpy()
    seen = ages[dataset.train.ids]
    expected = (ages - seen.mean()) / seen.std()
    np.testing.assert_allclose(features(dataset)[:, 0].numpy(), expected, rtol=1e-5)
    # Other test rows must not move them.
    changed = people()
    changed.loc[dataset.test.ids[0], "age"] = "99999"
    again = load(tmp_path, changed)
    assert torch.equal(torch.as_tensor(again.train.inputs), train)


def test_missing_cells_are_the_mean_with_a_mark_or_a_category_and_are_stated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = load(tmp_path)
    # age, hours and its mark, three jobs and no job
    assert dataset.train.inputs.shape[1] == 1 + 2 + 4
    values = features(dataset)
    gaps = torch.tensor((people()["hours"] == "").tolist())
    assert (values[gaps, 1] == 0).all()
    assert torch.equal(values[:, 2], gaps.float())
    job = values[:, 3:]
    assert (job.sum(dim=1) == 1).all()
    assert torch.equal(job[:, 0], torch.tensor((people()["job"] == "?").tolist()).float())
    assert "missing cells: hours 6, job 5; a missing number becomes" in capsys.readouterr().err


def test_a_category_that_training_does_not_have_is_none_of_them(tmp_path: Path) -> None:
    row = int(load(tmp_path).test.ids[0])
    changed = people()
    changed.loc[row, "job"] = "pilot"
    values = features(load(tmp_path, changed))
    assert values.shape[1] == 7
    assert values[row, 3:].sum() == 0


def test_models_see_sensitive_columns_only_when_asked_to(tmp_path: Path) -> None:
    hidden = load(tmp_path)
    seen = load(tmp_path, attributes_as_features=True)
    assert seen.attributes == hidden.attributes == ("sex", "region")
    # Two columns for sex; region is a number.
    assert seen.train.inputs.shape[1] == hidden.train.inputs.shape[1] + 3
    assert seen.digest != hidden.digest


def test_numbers_that_are_names_become_categories(tmp_path: Path) -> None:
    fields = {"attributes": "sex", "leave_out": "job,hours"}
    assert load(tmp_path, **fields).train.inputs.shape[1] == 2
    assert load(tmp_path, categorical="region", **fields).train.inputs.shape[1] == 1 + 4


def test_a_missing_group_is_a_group(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = people()
    table.loc[[0, 4], "sex"] = "NA"
    dataset = load(tmp_path, table)
    groups = pd.concat([split.columns["sex"] for split in dataset.splits().values()])
    assert (groups == "missing").sum() == 2
    assert "sex is missing in 2 rows: group 'missing'" in capsys.readouterr().err


def test_a_column_that_never_changes_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = people().assign(country="here", year="1996", nothing="")
    assert load(tmp_path, table).train.inputs.shape[1] == 7
    assert "equal in all training rows: country, year, nothing" in capsys.readouterr().err


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("cell", ["1e39", "1e300", "-1e308"])
def test_a_number_that_float32_cannot_hold_is_refused(tmp_path: Path, cell: str) -> None:
    table = people()
    row = int(load(tmp_path).test.ids[0])
    table.loc[row, "hours"] = cell
    table["tiny"] = [f"{number}e-300" for number in range(PEOPLE)]
    refused(tmp_path, rf"column 'hours' has '{cell}' in row {row + 1}, too far from", table)
    table = people().assign(tiny=table["tiny"])
    table.loc[row, "tiny"] = cell
    refused(tmp_path, rf"column 'tiny' has '{cell}' in row {row + 1}, too far from", table)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", ["e200", "e308", "e-308"])
def test_numbers_near_the_ends_of_float64_are_standardised(tmp_path: Path, scale: str) -> None:
    signs = ["1" if row % 2 else "-1" for row in range(PEOPLE)]
    plain = load(tmp_path, people().assign(age=signs))
    scaled = load(tmp_path, people().assign(age=[f"{sign}{scale}" for sign in signs]))
    torch.testing.assert_close(features(scaled)[:, 0], features(plain)[:, 0])
    assert features(plain)[:, 0].abs().max() > 0.5


def test_a_number_that_is_always_the_same_is_no_feature_whatever_its_mean(tmp_path: Path) -> None:
    assert load(tmp_path, people().assign(same="0.1")).train.inputs.shape[1] == 7


def test_the_remarks_name_the_features_and_a_column_that_counts_the_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = people().assign(number=[str(500 + (7 * row) % PEOPLE) for row in range(PEOPLE)])
    load(tmp_path, table, leave_out="job")
    said = capsys.readouterr().err
    assert "columns make 4 features: age, hours, number\n" in said
    assert "table: number counts the rows and is a feature; dataset.leave_out=job,number " in said
    table["number"] = [str(2 * row) for row in range(PEOPLE)]
    table = table.assign(**{f"measured_{number}": table["age"] for number in range(40)})
    load(tmp_path, table)
    said = capsys.readouterr().err
    assert "counts the rows" not in said
    assert re.search(r": age, hours, job, number, measured_0, .* and 3\d more\n", said)


def test_shares_that_leave_a_class_without_validation_are_refused(tmp_path: Path) -> None:
    table = people().assign(income=["x"] * 57 + ["y"] * 3)
    refused(tmp_path, r"fewer than 1 val examples \('y'\)", table, test_fraction=0.5)


def test_a_named_index_of_a_parquet_file_is_columns(tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    for index in (["age"], ["age", "sex"]):
        people().set_index(index).to_parquet(path)
        dataset = load(tmp_path, file=str(path))
        torch.testing.assert_close(features(dataset)[:, 0], features(load(tmp_path))[:, 0])
        assert dataset.train.inputs.shape[1] == 7


def test_parquet_and_csv_give_the_same_features(tmp_path: Path) -> None:
    expected = features(load(tmp_path))
    typed = people().assign(age=people()["age"].astype(int))
    typed["hours"] = pd.to_numeric(typed["hours"])
    typed["job"] = typed["job"].replace("?", None).astype("category")
    typed.to_parquet(tmp_path / "people.parquet")
    dataset = load(tmp_path, file=str(tmp_path / "people.parquet"))
    torch.testing.assert_close(features(dataset), expected)
    assert dataset.class_names == ("<=50K", ">50K")


def test_classes_that_are_numbers_are_in_their_order(tmp_path: Path) -> None:
    table = people().assign(income=[str((row // 2 % 3) * 5) for row in range(PEOPLE)])
    assert load(tmp_path, table).class_names == ("0", "5", "10")


def test_the_digest_follows_file_and_configuration_and_not_the_place(tmp_path: Path) -> None:
    first = load(tmp_path)
    assert load(tmp_path, seed=1).digest != first.digest
    (tmp_path / "moved").mkdir()
    assert load(tmp_path / "moved").digest == first.digest
    assert load(tmp_path, people().assign(age="3")[::-1]).digest != first.digest


def test_a_separator_may_be_chosen(tmp_path: Path) -> None:
    text = people().to_csv(index=False, sep=";")
    assert load(tmp_path, text, separator=";").train.inputs.shape[1] == 7
    refused(tmp_path, r"has one column .* when split at dataset\.separator=','", text)


SPELLINGS = {
    "thousands": lambda n: f"{n:,}.5",
    "few thousands": lambda n: f"{n:,}",
    "comma for the point": lambda n: f"{n},5",
    "points and a comma": lambda n: f"{n:,}".replace(",", ".") + ",25",
    "thin spaces": lambda n: f"{n:,}".replace(",", "\u202f"),
    "no-break spaces and a comma": lambda n: f"{n:,}".replace(",", "\u00a0") + ",5",
    "Swiss": lambda n: f"{n:,}".replace(",", "’"),
    "dollars": lambda n: f"${n:,}.00",
    "euros": lambda n: f"{n},00 €",
    "units": lambda n: f"{n:,} kg",
    "units at once": lambda n: f"{n}k",
    "times of a zone": lambda n: f"{np.datetime64('2020-01-01') + n}T00:00:00Z",
    "per cent": lambda n: f"{n}%",
    "dates": lambda n: str(np.datetime64("2020-01-01") + n),
    "times": lambda n: f"{np.datetime64('2020-01-01') + n} 00:00:00",
}


@pytest.mark.parametrize("spelled", SPELLINGS.values(), ids=SPELLINGS)
def test_a_column_of_numbers_is_numeric_in_whatever_spelling(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spelled: Callable[[int], str]
) -> None:
    numbers = [(7 * row) % 61 * 37 for row in range(PEOPLE)]
    plain = load(tmp_path, people().assign(age=list(map(str, numbers))))
    written = load(tmp_path, people().assign(age=[spelled(number) for number in numbers]))
    torch.testing.assert_close(features(written), features(plain), atol=1e-5, rtol=1e-5)
    assert re.search(r"^table: age: '.*' is read as [\d.]+", capsys.readouterr().err, re.M)


def test_a_sign_may_stand_before_or_behind_a_currency(tmp_path: Path) -> None:
    numbers = [row % 11 - 5 for row in range(PEOPLE)]
    plain = load(tmp_path, people().assign(age=list(map(str, numbers))))
    signs = ("-$", "$−")
    cells = [f"{'$' if n >= 0 else signs[row % 2]}{abs(n)}" for row, n in enumerate(numbers)]
    torch.testing.assert_close(
        features(load(tmp_path, people().assign(age=cells))), features(plain)
    )


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["1,5", "1.5"], r"has numbers and, in 30 rows, other cells, .* '1,5' in row 1; allowed:"),
        (
            ["5%", "0.05"],
            r"'age' has numbers and, in 30 rows, other cells, .*'5%' in row 1; allowed",
        ),
        (["$5", "€5"], r"'age' has numbers spelled as '\$5' and, .* '€5' in row 2"),
        (["1,234", "1,234.5", "1,5"], r"spelled as '1,234' and, in 20 rows, .* '1,5' in row 3;"),
        (["1,234", "unknown", "2"], r"'age' has numbers spelled as .* '1,234'|'unknown' in row 2"),
        (["192.168.0.1", "192.168.0.2"], r"'age' has numbers .* '192\.168\.0\.1' in row 1"),
        (["04/03/2021", "05/03/2021"], r"'age' has dates or times such as '04/03/2021' \(row 1\)"),
        (["10:20", "11:30"], r"dates or times such as '10:20' .* dataset\.categorical"),
        (["4 March 2021", "5 March 2021"], r"dates or times such as '4 March 2021'"),
        (["2021-03-04", "2021-02-30"], r"spelled as '2021-03-04' and, in 30 rows, .*'2021-02-30'"),
    ],
)
def test_numbers_in_several_spellings_are_refused_with_the_cell(
    tmp_path: Path, cells: list[str], message: str
) -> None:
    column = [cells[row % len(cells)] for row in range(PEOPLE)]
    refused(tmp_path, message, people().assign(age=column))
    load(tmp_path, people().assign(age=column), categorical="age")


def test_ranges_and_codes_are_names(tmp_path: Path) -> None:
    cells = [("18-24", "25-34", "A1", "5+")[row % 4] for row in range(PEOPLE)]
    assert load(tmp_path, people().assign(age=cells)).train.inputs.shape[1] == 4 + 2 + 4
    cells = [("1st", "2nd", "3rd", "10A")[row % 4] for row in range(PEOPLE)]
    assert load(tmp_path, people().assign(age=cells)).train.inputs.shape[1] == 4 + 2 + 4


def test_another_spelling_is_another_digest(tmp_path: Path) -> None:
    cells = [f"1,{row:03d}" for row in range(PEOPLE)]
    spelled = load(tmp_path, people().assign(age=cells)).digest
    named = load(tmp_path, people().assign(age=cells), categorical="age").digest
    assert spelled != named


@pytest.mark.parametrize(
    ("spellings", "names", "said"),
    [
        (("0", "1", "0.0", "1.0", "1e0"), ("0", "1"), "'0' = '0.0', '1' = '1.0' = '1e0' are read"),
        (
            ("True", "False", "TRUE", "false"),
            ("False", "True"),
            "'True' = 'TRUE', 'False' = 'false'",
        ),
        (("true", "0", "1", "FALSE"), ("False", "True"), "'False' = '0' = 'FALSE', 'True' = '1'"),
        ((">50K", "<=50K", ">50K."), ("<=50K", ">50K", ">50K."), "'>50K' and '>50K.' look alike"),
        (
            ("New York", "Rome", "new_york"),
            ("New York", "Rome", "new_york"),
            "'New York' and 'new_york' look",
        ),
    ],
)
def test_one_meaning_of_a_label_or_a_group_has_one_spelling_or_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spellings: tuple[str, ...],
    names: tuple[str, ...],
    said: str,
) -> None:
    cells = [spellings[row // 2 % len(spellings)] for row in range(PEOPLE)]
    dataset = load(tmp_path, people().assign(income=cells), attributes="sex")
    assert dataset.class_names == names
    assert f"table: label 'income': {said}" in capsys.readouterr().err
    dataset = load(tmp_path, people().assign(region=cells))
    groups = {group for split in dataset.splits().values() for group in split.columns["region"]}
    assert groups == set(names)
    assert f"table: attribute 'region': {said}" in capsys.readouterr().err


def test_letters_with_accents_are_equal_however_they_are_composed(tmp_path: Path) -> None:
    cells = [("Zoé", "Zoe\u0301", "Max")[row % 3] for row in range(PEOPLE)]
    table = people().assign(income=cells).rename(columns={"region": "re\u0301gion"})
    dataset = load(tmp_path, table, attributes="sex,région")
    assert dataset.class_names == ("Max", "Zoé")
    table.to_parquet(tmp_path / "people.parquet")
    fields = {"file": str(tmp_path / "people.parquet"), "attributes": "sex,région"}
    assert load(tmp_path, **fields).class_names == ("Max", "Zoé")


LABEL = people()["income"]


@pytest.mark.parametrize(
    "cells",
    [
        LABEL.map({">50K": "Y", "<=50K": "N"}),
        LABEL.map({">50K": "1", "<=50K": "0"}),
        LABEL.map({">50K": "Y", "<=50K": "N"}).where(people().index % 9 > 0, ""),
        LABEL.map({">50K": "1,000", "<=50K": "2,000"}),
    ],
)
def test_a_feature_or_an_attribute_that_is_the_label_is_refused(
    tmp_path: Path, cells: pd.Series
) -> None:
    table = people().assign(answer=cells)
    refused(
        tmp_path,
        r"column 'answer' is the label under another name; .* dataset\.leave_out=job,answer leaves",
        table,
        leave_out="job",
    )
    refused(tmp_path, r"attribute 'answer' is the label under", table, attributes="sex,answer")
    load(tmp_path, table, leave_out="answer")


def test_a_feature_that_decides_the_label_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rich = LABEL == ">50K"
    score = [str(100 * high + row) for row, high in enumerate(rich)]
    grade = [("AB" if high else "CD")[row // 5 % 2] for row, high in enumerate(rich)]
    load(tmp_path, people().assign(score=score, grade=grade))
    assert (
        "table: score, grade alone decides the label of every row and is a feature; "
        "dataset.leave_out=score,grade leaves it out\n" in capsys.readouterr().err
    )
    load(tmp_path)
    assert "decides the label" not in capsys.readouterr().err


@pytest.mark.parametrize("start", ["202103", "2021"])
def test_dates_in_digits_are_numbers_and_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], start: str
) -> None:
    load(tmp_path, people().assign(day=[f"{start}{row % 12 + 1:02d}" for row in range(PEOPLE)]))
    assert "table: day looks like dates in digits and is a feature; " in capsys.readouterr().err


@pytest.mark.parametrize("named", [False, True])
def test_the_index_that_pandas_writes_is_no_feature_unless_it_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], named: bool
) -> None:
    table = people().sample(frac=1, random_state=0).reset_index(drop=True)
    expected = load(tmp_path, table)
    table.index = table.index[::-1] * 2
    text = table.to_csv()
    assert text.startswith(",age")
    text = "Unnamed: 0" + text if named else text
    capsys.readouterr()
    found = load(tmp_path, text)
    torch.testing.assert_close(features(found), features(expected))
    said = capsys.readouterr().err
    assert "table: left out, an index as pandas writes it: Unnamed: 0\n" in said
    fields = {"attributes": "sex", "categorical": "Unnamed: 0"}
    assert load(tmp_path, text, **fields).train.inputs.shape[1] > 7 + 30


def test_a_tab_is_spelled_as_in_a_shell(tmp_path: Path) -> None:
    text = people().to_csv(index=False, sep="\t")
    expected = features(load(tmp_path))
    for separator in (r"\t", "\t"):
        assert torch.equal(features(load(tmp_path, text, separator=separator)), expected)
    refused(tmp_path, r"allowed: another separator, such as dataset\.separator='\\t'$", text)


def test_names_with_commas_stand_in_quotes(tmp_path: Path) -> None:
    table = people().rename(columns={"sex": "sex, as given", "region": 'the "region"'})
    dataset = load(tmp_path, table, attributes='"sex, as given","the ""region"""')
    assert dataset.attributes == ("sex, as given", 'the "region"')


@pytest.mark.parametrize("suffix", [".jsonl", ".xlsx", ".csv.gz"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"people{suffix}"
    people().to_json(path, orient="records", lines=True)
    refused(tmp_path, r"is of kind \.\w+; allowed: a CSV file in UTF-8 or a", file=str(path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"file": ""}, r"^dataset\.file is not given"),
        ({"file": "nowhere.csv"}, r"^dataset\.file='nowhere\.csv' is no file"),
        ({"file": "nowhere.csv"}, rf"\(looked at '{Path.cwd()}/nowhere\.csv'\); allowed: a CSV"),
        ({"file": "~nosuchuser/a.csv"}, r"^dataset\.file='~nosuchuser/a\.csv' cannot be used as a"),
        (
            {"file": "a" * 999},
            r"^dataset\.file='a{97}\.{3}' cannot be used as a path \(File name to",
        ),
        ({"label": "incom"}, r"^dataset\.label='incom' does not exist; did you mean 'income'\?"),
        ({"attributes": "sex,race"}, r"^dataset\.attributes='race' does not exist; .*known: age"),
        ({"attributes": "income"}, r"^dataset\.attributes='income' is not allowed; .*label='inc"),
        ({"categorical": "jobs"}, r"^dataset\.categorical='jobs' does not exist; did you mean 'jo"),
        ({"leave_out": "jobs"}, r"^dataset\.leave_out='jobs' does not exist"),
        ({"leave_out": "age,hours,job"}, r"has no column that models could learn from"),
        ({"most_categories": 3}, r"'region' has 4 groups; allowed: at most .*most_categories=3"),
        ({"most_categories": 3, "attributes": ""}, r"'job' has 4 different names in training; "),
    ],
)
def test_a_field_that_does_not_fit_the_table_is_refused(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    refused(tmp_path, message, **fields)


@pytest.mark.parametrize(
    ("column", "cells", "message"),
    [
        ("income", ["x"] * PEOPLE, r"has only one class \('x'\)"),
        ("income", ["x"] * 58 + ["y"] * 2, r"fewer than 3 .* examples \('y'\)"),
        ("income", ["x", "", "y"] * 20, r"label 'income' is missing in 20 rows, .* row 2;"),
        ("age", ["1"] * 58 + ["old", "inf"], r"'age' .* in 2 rows, .* 'old' in row 59; allowed: "),
        ("sex", ["m"] * PEOPLE, r"attribute 'sex' has one group \('m'\)"),
        (
            "sex",
            ["a" if row % 5 < 2 else "b" for row in range(PEOPLE)],
            r"attribute 'sex' is the label under another name",
        ),
    ],
)
def test_a_column_that_cannot_be_used_is_refused(
    tmp_path: Path, column: str, cells: list[str], message: str
) -> None:
    refused(tmp_path, message, people().assign(**{column: cells}))


def test_a_label_of_very_many_values_is_refused(tmp_path: Path) -> None:
    text = "a,income\n" + "".join(f"{row % 3},{row}\n" for row in range(1001))
    refused(tmp_path, r"has 1001 different values; allowed: at most 1000", text, attributes="")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"age,income\n\xe9,x\n", r"line 2: not UTF-8 \(byte 0xe9\)"),
        (b"age,income\n1,x\n1\n", r"line 3: 1 cells; allowed: 2"),
        (b"age,age\n1,x\n", r"has column 'age' twice"),
        (b"", r"has no lines of data"),
        (b"\xef\xbb\xbfage,income\n1,x\n", r"has only one class \('x'\)"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.csv").write_bytes(content)
    refused(tmp_path, message, file=str(tmp_path / "bad.csv"), attributes="")


@pytest.mark.parametrize(
    ("cell", "kind"),
    [([1, 2], "list<"), (b"x", "binary"), (pd.Timedelta("1h"), "duration"), ({"a": 1}, "struct<")],
)
def test_a_column_of_a_parquet_file_that_is_no_feature_is_refused(
    tmp_path: Path, cell: object, kind: str
) -> None:
    path = tmp_path / "people.parquet"
    people().assign(odd=[cell] * PEOPLE).to_parquet(path)
    refused(tmp_path, rf"column 'odd' is of type {kind}.*dataset\.leave_out$", file=str(path))
    load(tmp_path, file=str(path), leave_out="odd")


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    refused(tmp_path, r"cannot be read as Parquet \(", file=str(tmp_path / "bad.parquet"))
