"""Real-time recurrent learning, whole and without its far reaches."""

from typing import Any

from recurra.tasks import Task
from recurra.train.config import Config
from recurra.train.errors import RunError
from recurra.train.rules.influence import Exact, Influence
from recurra.train.rules.layer import Layer
from recurra.train.rules.online import OnlineRule


class RTRL(OnlineRule):
    r"""The whole gradient without looking back: every parameter's influence on the state is carried along.

    .. math::  J_t = D_t J_{t-1} + I_t \qquad
        \frac{dL}{d\theta} = \sum_t \frac{\partial \ell_t}{\partial s_{t-1}} J_{t-1}
        + \left.\frac{\partial \ell_t}{\partial \theta}\right|_{s_{t-1}}

    Williams & Zipser 1989, https://doi.org/10.1162/neco.1989.1.2.270. For N dense units J has N numbers a parameter,
    and a step costs N times a step of the cell and N^2 a parameter; where units do not see each other (indrnn, elstm,
    lru, mingru, ...) it has one, or as many as a unit has numbers, and costs as much as the cell: Irie et al. 2024,
    https://arxiv.org/abs/2305.19044. Exact for the last recurrent layer; see `online` for those below.
    """

    def remember(self, layer: Layer) -> Influence:
        return Exact(layer)


class SnAp(OnlineRule):
    r"""Real-time recurrent learning that keeps an influence only on units that it reaches within a few steps.

    .. math::  J_t = M_n \odot (D_t J_{t-1} + I_t) \qquad M_n = \text{where } n \text{ steps can have carried it}

    Menick et al. 2021, https://arxiv.org/abs/2006.07232. A unit is all numbers that stand at one place of the state,
    as an LSTM's h and c. With n = 1 a parameter moves only the units that it enters: memory as of the parameters. For
    dense cells all of D is still computed, N backward passes of one step; only what is kept is small.

    Args:
        steps: n; where units do not see each other 1 is exact already.

    Raises:
        RunError: `steps` is less than 1.
    """

    def __init__(self, model: Any, task: Task, config: Config, *, steps: int = 1) -> None:
        if steps < 1:
            raise RunError(f"steps is {steps}: it must be at least 1")
        self.steps = steps
        super().__init__(model, task, config)

    def remember(self, layer: Layer) -> Influence:
        return Exact(layer, self.steps)
