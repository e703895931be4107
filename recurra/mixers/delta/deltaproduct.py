"""DeltaProduct: several steps of the delta rule for each token, so that one token may turn the memory."""

from torch import nn
from torch.nn import functional as F

from recurra.clock import Clock
from recurra.mixers.base import Mixer
from recurra.ops import Delta, Scan
from recurra.ops.steps import finer
from recurra.parts.conv import ShortConvolution
from recurra.parts.delta import Fading, asked, check_strength, size_of, told
from recurra.parts.norms import RMSNorm
from recurra.shapes import Float, Tensor

DeltaState = tuple[Float[Tensor, "B J M"], Float[Tensor, "B H K V"]]


class DeltaProduct(Mixer):
    r"""A memory that each token fades once and then corrects under several keys in turn, and only then reads.

    .. math::
        S_{t,0} = \alpha_t S_{t-1} \qquad
        S_{t,j} = S_{t,j-1} + \beta_{t,j} k_{t,j} (v_{t,j} - S_{t,j-1}^\top k_{t,j})^\top \qquad
        S_t = S_{t,n}
    .. math::
        y_t = W_o \bigl(\operatorname{norm}(K^{-1/2} S_t^\top q_t) \odot \operatorname{swish}(W_g x_t)\bigr) \qquad
        \alpha_t = \exp(-e^{a} \operatorname{softplus}(W_\alpha x_t + b)) \qquad
        \beta_{t,j} = s\, \sigma(W_{\beta,j} x_t)

    with q and, for each of the n updates, k and v linear in x, then a short convolution with SiLU; q and k of length
    one (1e-6 inside the root); norm an RMSNorm of each head. With s = 2 an update may be a reflection, and n of them
    any rotation of n dimensions: what one token does to the memory need not be undone by the next. Source: Siems et
    al. 2025, https://arxiv.org/abs/2502.10297. As in the paper: with `fades` Gated DeltaProduct, without DeltaProduct;
    with one update Gated DeltaNet, or DeltaNet with an output gate. It is the delta rule on a finer clock, of n ticks
    a step: the first fades, the last is read.

    State: the convolution's past, `(B, conv_size - 1, heads * (K + updates * (K + V)))`, and the memory S,
    `(B, H, K, V)` with V = expand K; float32 (float64 if the parameters are).

    Args:
        width: features in and out (D).
        heads: independent memories (H).
        head_size: features of a key (K); None: width / heads.
        expand: values are this many times as wide as keys.
        updates: n, for each token.
        fades: whether the memory fades; if not, :math:`\alpha` is 1.
        strength: s, in (0, 2], the most that one update replaces of what its key recalls.
        conv_size: inputs that the short convolution sees at each step.

    Raises:
        ValueError: there is no `head_size` and `heads` does not divide `width`, `strength` is outside (0, 2], or
            there are no `updates`.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int = 4,
        head_size: int | None = None,
        expand: int = 2,
        updates: int = 2,
        fades: bool = True,
        strength: float = 2.0,
        conv_size: int = 4,
    ) -> None:
        super().__init__()
        if updates < 1:
            raise ValueError(f"updates is {updates}: each token needs at least 1")
        self.heads, self.size, self.strength = heads, size_of(width, heads, head_size), check_strength(strength)
        self.updates = updates
        keys, values = heads * self.size, expand * heads * self.size
        self.mixed = [keys, updates * keys, updates * values]
        self.splits = [sum(self.mixed), values, updates * heads, heads if fades else 0]
        self.project = nn.Linear(width, sum(self.splits), bias=False)
        self.conv = ShortConvolution(sum(self.mixed), size=conv_size, bias=False)
        self.fading = Fading(heads) if fades else None
        self.norm = RMSNorm(values // heads)
        self.out = nn.Linear(values, width, bias=False)
        self.scan = Scan()

    def initial_state(self, batch: int) -> DeltaState:
        """Nothing remembered, nothing seen: zeros."""
        return self.conv.initial_state(batch), self.zeros(batch, self.heads, self.size, len(self.norm.weight))

    def mix(self, x: Float[Tensor, "B T D"], state: DeltaState, clock: Clock | None) -> tuple[Tensor, DeltaState]:
        """Project, convolve, fade and correct the memory tick by tick, normalise the last read, then gate."""
        past, memory = state
        n = self.updates
        mixed, gate, write, forget = self.project(x).split(self.splits, -1)
        mixed, past = self.conv(mixed, past, clock)
        query, key, value = mixed.split(self.mixed, -1)
        write = self.strength * write.to(memory.dtype).sigmoid().unflatten(-1, (n, self.heads))
        key, value = (part.unflatten(-1, (n, self.heads, -1)) for part in (key, value))
        key, written, value = (part.flatten(1, 2) for part in (*told(key, write), value.to(memory.dtype)))
        query = asked(query.unflatten(-1, (self.heads, -1)), memory)
        query = F.pad(query[:, :, None], (0, 0, 0, 0, n - 1, 0)).flatten(1, 2)
        log_decay = None
        if self.fading is not None:
            log_decay = F.pad(self.fading(forget)[:, :, None], (0, 0, 0, n - 1)).flatten(1, 2)
        read, memory = self.scan(Delta(query, written, value, key, log_decay), memory, finer(clock, n))
        read = read.unflatten(1, (-1, n))[:, :, -1]
        return self.out(self.norm.gated(read, gate)), (past, memory)
