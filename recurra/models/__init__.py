"""Models: a backbone with a way in and a way out. By name, for runs and folders."""

from typing import Any

from recurra.models.backbone import Backbone as Backbone
from recurra.models.budget import count as count, solve_width as solve_width
from recurra.models.classifier import Classifier
from recurra.models.folder import load as load
from recurra.models.forecaster import Forecaster
from recurra.models.language_model import LanguageModel

MODELS: dict[str, Any] = {
    "language_model": LanguageModel,
    "classifier": Classifier,
    "forecaster": Forecaster,
}
