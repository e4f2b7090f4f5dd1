from kdplatform.errors import one_line, unknown_name


def test_a_librarys_message_becomes_one_plain_line() -> None:
    assert one_line("a\n\t \x1b[1mbold\x1b[0m word. \n") == "a bold word."
    assert one_line(KeyError()) == "KeyError"


def test_a_long_message_ends_with_a_whole_word() -> None:
    said = one_line("some words " * 100, 30)
    assert said == "some words some words some ..."
    assert one_line("x" * 100, 30) == "x" * 26 + " ..."


def test_of_very_many_names_those_of_a_block_are_one() -> None:
    known = [f"teacher.field{number}" for number in range(100)] + ["seeds", "name"]
    assert str(unknown_name("parameter", "qqq", known)) == (
        "parameter='qqq' does not exist; known: name, seeds, teacher.* (100 fields), see --help"
    )
    assert "did you mean 'teacher.field7'" in str(
        unknown_name("parameter", "teacher.field7x", known)
    )
