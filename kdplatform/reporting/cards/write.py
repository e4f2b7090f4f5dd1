"""All cards of a model as files of one folder."""

from collections.abc import Mapping
from pathlib import Path

from kdplatform.files import written_atomically
from kdplatform.reporting.cards.annex_iv import annex_iv
from kdplatform.reporting.cards.every_eval_ever import evaluation_record
from kdplatform.reporting.cards.facts import CardFacts
from kdplatform.reporting.cards.hugging_face import model_card
from kdplatform.reporting.cards.loss_statement import loss_statement

FOLDER = "card"
MODEL_CARD = "README.md"


def card_files(facts: CardFacts) -> Mapping[str, str]:
    """Returns the cards of a model, by the name of their file."""
    return {
        MODEL_CARD: model_card(facts),
        "distillation_loss_statement.md": loss_statement(facts),
        "every_eval_ever.json": evaluation_record(facts),
        "annex_iv.md": annex_iv(facts),
    }


def write_cards(facts: CardFacts, folder: Path) -> list[Path]:
    """Writes the cards of a model; returns the written files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in card_files(facts).items():
        with written_atomically(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
            temporary.chmod(0o644)  # others may read it
        written.append(folder / name)
    return written
