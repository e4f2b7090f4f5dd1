"""Distillation by divergences other than KL(teacher || student).

    (1 - alpha) * CE + alpha * T^2 * D(p, q),    p and q the softmaxes at T of teacher and student

    forward          KL(p || q), which is `kd`
    reverse          KL(q || p)
    symmetric        (KL(p || q) + KL(q || p)) / 2
    jsd              b * KL(p || m) + (1 - b) * KL(q || m),    m = b * p + (1 - b) * q
    skew             KL(p || a * p + (1 - a) * q)
    total_variation  sum |p - q| / 2

The factor T^2 keeps the size of the gradient as T changes. The factor of the total variation is T,
because its gradient falls as 1/T. Sources are Lin 1991 for the JSD, Ko et al. 2024 (DistiLLM, arXiv
2402.03898) for the skew with a = 0.1, and Wen et al. 2023 (f-DISTILL, arXiv 2307.15190) for
distillation with such divergences. Other defaults are those of `kd`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from kdplatform import kernels
from kdplatform.lazy import torch
from kdplatform.methods import Batch, Run
from kdplatform.methods._logits import LogitMethod
from kdplatform.settings.schema import DistillationConfig, Fraction, Temperature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Config(DistillationConfig):
    """The divergence, its temperature and its weight."""

    temperature_field: ClassVar[str] = "temperature"
    alpha_field: ClassVar[str] = "alpha"

    method: Literal["divergence"] = Field("divergence", description="method")
    kind: Literal["forward", "reverse", "symmetric", "jsd", "skew", "total_variation"] = Field(
        "reverse", description="divergence between teacher and student"
    )
    temperature: Temperature = Field(
        4.0, description="softmax temperature T of teacher and student"
    )
    alpha: Fraction = Field(0.8, description="weight of the distillation term")
    jsd_weight: float = Field(0.5, gt=0, lt=1, description="teacher's share b of kind=jsd")
    skew: float = Field(0.1, ge=0, lt=1, description="teacher's share a of kind=skew")


class Divergence(LogitMethod[Config]):
    """Cross entropy, and a divergence between teacher and student."""

    def label_weight(self, teacher: Tensor, batch: Batch) -> float:
        """Returns 1 - alpha."""
        return 1 - self.config.alpha

    def distillation(
        self, student: Tensor, teacher: Tensor, batch: Batch, run: Run
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the distillation term; its part is `divergence`."""
        config = self.config
        temperature = config.temperature
        if config.kind == "forward":
            rows, kl, _ = kernels.kd_loss(
                student, teacher, temperature=temperature, kl_weight=config.alpha, reduction="none"
            )
            return rows, {"divergence": kl}
        log_q = (student / temperature).log_softmax(dim=1)
        log_p = (teacher / temperature).log_softmax(dim=1)
        rows = self._divergence(log_p, log_q)
        power = 1 if config.kind == "total_variation" else 2
        return config.alpha * temperature**power * rows, {"divergence": rows.detach()}

    def _divergence(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        kind, b = self.config.kind, self.config.jsd_weight
        if kind == "reverse":
            return _kl(log_q, log_p)
        if kind == "symmetric":
            return (_kl(log_p, log_q) + _kl(log_q, log_p)) / 2
        if kind == "jsd":
            middle = _mixture(b, log_p, log_q)
            return b * _kl(log_p, middle) + (1 - b) * _kl(log_q, middle)
        if kind == "skew":
            return _kl(log_p, _mixture(self.config.skew, log_p, log_q))
        return (log_p.exp() - log_q.exp()).abs().sum(dim=1) / 2


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Returns KL(p || q) of each row."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def _mixture(share: float, log_p: Tensor, log_q: Tensor) -> Tensor:
    """Returns log(share * p + (1 - share) * q)."""
    if share == 0:
        return log_q
    return torch.logaddexp(log_p + math.log(share), log_q + math.log1p(-share))
