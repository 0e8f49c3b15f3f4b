"""Which evaluator the settings name."""

from __future__ import annotations

from enrich.decisions.embedded import EmbeddedEvaluator
from enrich.decisions.protocol import Evaluator
from enrich.settings import Settings

__all__ = ["evaluator_of"]


def evaluator_of(settings: Settings) -> Evaluator:
    """An evaluator as `evaluator` in the settings says; whoever prepares policies with it closes what is prepared."""
    match settings.evaluator:
        case "embedded":
            return EmbeddedEvaluator()
