"""Methods that weight the rows of plain distillation, or of cross entropy without a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from pydantic import Field

from kdplatform.methods import Batch, Loss, Method, Needs, Run
from kdplatform.methods._terms import cross_entropy, usual_loss
from kdplatform.settings.schema import DistillationConfig, Fraction, MethodConfig, Temperature

if TYPE_CHECKING:
    from torch import Tensor

ConfigT = TypeVar("ConfigT", bound=MethodConfig)


class DistilledRows(DistillationConfig):
    """The fields of plain distillation, with the defaults of `kd`."""

    temperature_field: ClassVar[str | None] = "temperature"
    alpha_field: ClassVar[str | None] = "alpha"

    temperature: Temperature = Field(
        4.0, description="softmax temperature T of teacher and student"
    )
    alpha: Fraction = Field(0.8, description="weight of the distillation term")


class RowMethod(Method[ConfigT]):
    """A method that changes how much each row of the usual loss counts.

    With a teacher the loss of a row is alpha * T^2 * KL + (1 - alpha) * CE, otherwise CE.
    """

    def __init__(self, config: ConfigT) -> None:
        super().__init__(config)
        distils = isinstance(config, DistillationConfig)
        self.needs = Needs(teacher="logits" if distils else "none")

    def usual(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row before it is weighted; parts are `kl` and `ce`, or none."""
        config = self.config
        if not isinstance(config, DistilledRows):
            student = run.student(batch.inputs)
            return Loss(cross_entropy(run, student.logits, batch.labels), student, {})
        return usual_loss(
            batch,
            run,
            temperature=config.temperature,
            alpha=config.alpha,
        )


def weighted(loss: Loss, weights: Tensor) -> Loss:
    """Returns the loss with its rows multiplied by these weights [B]; its parts stay unweighted."""
    return loss._replace(rows=weights.to(loss.rows.dtype) * loss.rows)
