"""Names of ImageNet's classes, which are synsets of WordNet."""

from collections.abc import Mapping, Sequence


def synset_names(words: Mapping[str, str], codes: Sequence[str]) -> list[str]:
    """Returns the first word of every class's synset; its code too where two share the word.

    Args:
        words: of a synset, separated by commas, by its code, such as n01443537.
        codes: of the classes.
    """
    first = [words.get(code, code).split(",")[0].strip() for code in codes]
    return [
        f"{name} ({code})" if first.count(name) > 1 else name
        for name, code in zip(first, codes, strict=True)
    ]
