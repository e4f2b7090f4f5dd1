"""Reads the user's YAML. Every mistake is reported with its line and column."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode

from kdplatform.errors import UserError

# Counted with aliases expanded: a few lines of aliases can exceed the memory.
_MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """Safe loading that refuses duplicate keys, of which YAML would silently keep the last.

    It also refuses a document that is very large after its aliases are expanded.
    """

    def construct_document(self, node: yaml.Node) -> Any:
        """Returns the content of a document.

        Raises:
            ConstructorError: the document is very large.
        """
        if _size(node, {}) > _MOST_VALUES:
            raise yaml.constructor.ConstructorError(
                None, None, f"more than {_MOST_VALUES:,} values", node.start_mark
            )
        return super().construct_document(node)

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Returns the mapping of a node.

        Raises:
            ConstructorError: a key is given twice.
        """
        # Counted before merge keys (<<) are resolved, because their values may be overridden.
        keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        seen: set[str] = set()
        for key in keys:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is given twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Returns how many values a node holds after aliases are expanded."""
    if id(node) not in known:
        # A mapping's values are pairs of nodes, a sequence's are nodes.
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        inner = [p for part in parts for p in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_size(part, known) for part in inner)
    return known[id(node)]


def read_mapping(parameter: str, path: Path, example: str = "name: digits") -> dict[str, Any]:
    """Reads a YAML file that holds a mapping.

    Args:
        example: of such a mapping, for the error.

    Raises:
        UserError: the file cannot be read, is not valid YAML (with line and column), or does not
            hold a mapping.
    """
    try:
        # _Loader is a SafeLoader.
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join((error.problem or error.context or "malformed").split())
        raise UserError(f"{parameter}={str(path)!r}{where}: not valid YAML: {problem}") from None
    except (yaml.YAMLError, ValueError) as error:  # bytes that are no text, a 13th month
        problem = " ".join(str(error).split())
        raise UserError(f"{parameter}={str(path)!r}: not valid YAML: {problem}") from None
    except RecursionError:
        raise UserError(f"{parameter}={str(path)!r}: not valid YAML: nested too deeply") from None
    except OSError as error:
        raise UserError(f"{parameter}={str(path)!r} cannot be read ({error.strerror})") from None
    if not isinstance(content, dict):
        kind = "is empty" if content is None else f"is a {type(content).__name__}"
        raise UserError(
            f"{parameter}={str(path)!r} holds no fields, it {kind}; allowed: a mapping such as "
            f"{example!r}"
        )
    return content
