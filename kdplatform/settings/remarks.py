"""What a command says beforehand of settings that apply to some methods or not as given."""

from collections.abc import Iterable

from kdplatform.errors import UserError
from kdplatform.settings.methods import is_of_method, takes
from kdplatform.settings.schema import ProjectConfig
from kdplatform.settings.words import plain_text


def method_remarks(config: ProjectConfig, overrides: Iterable[str]) -> list[str]:
    """Names the methods of a sweep with one arm, and the given fields that not all of them have.

    Args:
        overrides: names of the fields that were given.

    Raises:
        UserError: temperatures or a field were given, and no method has them.
    """
    methods = config.compared_methods
    without = [method.method for method in methods if method.softmax_temperature is None]
    said = []
    if without:
        has = "has" if len(without) == 1 else "have"
        if "temperatures" in overrides and len(without) == len(methods):
            raise UserError(
                f"temperatures={plain_text(config.temperatures)} is not allowed with "
                f"{','.join(without)}, which {has} no temperature; allowed: without temperatures"
            )
        said = [f"{', '.join(without)}: {has} no temperature; one arm each, whatever T"]
    for name in filter(is_of_method, overrides if config.methods else ()):
        lacking = [method.method for method in methods if not takes(type(method), name)]
        if lacking and len(lacking) == len(methods):
            raise UserError(f"{name} is not for {', '.join(lacking)}: none of them takes it")
        if lacking:
            said.append(f"{name} is not for {', '.join(lacking)}; it sets the other methods alone")
    return said


def own_alpha_remark(config: ProjectConfig, overrides: Iterable[str]) -> list[str]:
    """Says that a given alpha is a method's own, not the weight of its distillation term."""
    method = config.distillation
    of_its_own = method.alpha_field is None and "alpha" in type(method).model_fields
    if config.methods or not of_its_own or "alpha" not in overrides:
        return []
    return [f"alpha is that of {method.method}'s paper: the weight of one part of its loss"]


def shortened_warmups(config: ProjectConfig) -> list[str]:
    """Names the warm-ups that are longer than their training and are cut to it."""
    return [
        f"{name}.warmup_epochs={block.warmup_epochs:g} is cut to {name}.epochs={block.epochs}"
        for name, block in (("teacher", config.teacher), ("student", config.student))
        if block.warmup < block.warmup_epochs and not block.frozen
    ]
