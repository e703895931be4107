"""Models: a backbone with a way in and a way out. By name, for runs and folders."""

from typing import Any

from recurra.models.backbone import Backbone as Backbone
from recurra.models.bahdanau import Bahdanau
from recurra.models.budget import count as count, solve_width as solve_width
from recurra.models.classifier import Classifier
from recurra.models.ctc import CTC
from recurra.models.depth_recurrent import DepthRecurrent
from recurra.models.folder import load as load
from recurra.models.forecaster import Forecaster
from recurra.models.handwriting import Handwriting
from recurra.models.hypernetwork import Hypernetwork
from recurra.models.language_model import LanguageModel
from recurra.models.latent_ode import LatentODE
from recurra.models.lrcn import LRCN
from recurra.models.mixer_experts import MixerExperts
from recurra.models.recurrent_depth_lm import RecurrentDepthLM
from recurra.models.seq2seq import Seq2Seq

MODELS: dict[str, Any] = {
    "language_model": LanguageModel,
    "classifier": Classifier,
    "forecaster": Forecaster,
    "seq2seq": Seq2Seq,
    "bahdanau": Bahdanau,
    "ctc": CTC,
    "handwriting": Handwriting,
    "lrcn": LRCN,
    "latent_ode": LatentODE,
    "depth_recurrent": DepthRecurrent,
    "recurrent_depth_lm": RecurrentDepthLM,
    "hypernetwork": Hypernetwork,
    "mixer_experts": MixerExperts,
}
