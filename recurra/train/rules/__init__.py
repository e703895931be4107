"""Ways to learn, by name: `recurra train SOURCE --rule NAME`. To add one: write its file, add its line here."""

import inspect
from typing import Any

from recurra.checks import of_types
from recurra.models.backbone import nearest
from recurra.tasks import Task
from recurra.train.config import Config
from recurra.train.errors import RunError
from recurra.train.rules.backpropagation import BPTT, TBPTT
from recurra.train.rules.base import LearningRule as LearningRule, Update as Update
from recurra.train.rules.curriculum import Curriculum
from recurra.train.rules.eligibility import RFLO, EProp
from recurra.train.rules.force import Force
from recurra.train.rules.forward_mode import RTRL, SnAp
from recurra.train.rules.fptt import FPTT
from recurra.train.rules.kronecker import KFRTRL
from recurra.train.rules.linear_unit import OnlineLRU
from recurra.train.rules.rank_one import UORO
from recurra.train.rules.target_dynamics import TargetDynamics

RULES: dict[str, type[LearningRule]] = {
    "bptt": BPTT,
    "tbptt": TBPTT,
    "rtrl": RTRL,
    "snap": SnAp,
    "uoro": UORO,
    "kf_rtrl": KFRTRL,
    "eprop": EProp,
    "rflo": RFLO,
    "online_lru": OnlineLRU,
    "fptt": FPTT,
    "force": Force,
    "target_dynamics": TargetDynamics,
    "curriculum": Curriculum,
}


def build(model: Any, task: Task, config: Config) -> LearningRule:
    """The rule that a run's settings name.

    Raises:
        RunError: there is no such rule or keyword (the nearest is named), or it cannot teach this model.
        ValueError: a keyword is of another type.
    """
    if config.rule not in RULES:
        raise RunError(f"there is no rule {config.rule!r}{nearest(config.rule, RULES)}; there are {', '.join(RULES)}")
    rule = RULES[config.rule]
    known = [x for x in inspect.signature(rule).parameters if x not in ("model", "task", "config")]
    for keyword in config.rule_arguments:
        if keyword not in known:
            raise RunError(f"{config.rule} has no keyword {keyword!r}{nearest(keyword, known)}")
    of_types(rule, config.rule_arguments)
    return rule(model, task, config, **config.rule_arguments)
