from kdplatform.errors import one_line


def test_a_librarys_message_becomes_one_plain_line() -> None:
    assert one_line("a\n\t \x1b[1mbold\x1b[0m word. \n") == "a bold word."
    assert one_line(KeyError()) == "KeyError"


def test_a_long_message_ends_with_a_whole_word() -> None:
    said = one_line("some words " * 100, 30)
    assert said == "some words some words some ..."
    assert one_line("x" * 100, 30) == "x" * 26 + " ..."
