"""The architectures, by name. To add one: write its file, add its line here, write its test."""

from recurra.mixers.base import Mixer as Mixer
from recurra.mixers.block.hippo import HiPPO
from recurra.mixers.block.linoss import LinOSS
from recurra.mixers.block.lmu import LMU
from recurra.mixers.block.lssl import LSSL
from recurra.mixers.block.s4 import S4
from recurra.mixers.cell.cfc import CfC
from recurra.mixers.cell.conv_lstm import ConvLSTM
from recurra.mixers.cell.cornn import CoRNN
from recurra.mixers.cell.ctrnn import CTRNN
from recurra.mixers.cell.dnc import DNC
from recurra.mixers.cell.echo_state import EchoState
from recurra.mixers.cell.elman import Elman
from recurra.mixers.cell.elstm import ELSTM
from recurra.mixers.cell.fast_weights_rnn import FastWeightsRNN
from recurra.mixers.cell.fernn import FERNN
from recurra.mixers.cell.goru import GORU
from recurra.mixers.cell.gru import GRU
from recurra.mixers.cell.gru_d import GRUD
from recurra.mixers.cell.horn import HORN
from recurra.mixers.cell.indrnn import IndRNN
from recurra.mixers.cell.irnn import IRNN
from recurra.mixers.cell.jordan import Jordan
from recurra.mixers.cell.lstm import LSTM
from recurra.mixers.cell.ltc import LTC
from recurra.mixers.cell.mgu import MGU
from recurra.mixers.cell.neural_cde import NeuralCDE
from recurra.mixers.cell.neural_ode import NeuralODE
from recurra.mixers.cell.ntm import NTM
from recurra.mixers.cell.ode_rnn import ODERNN
from recurra.mixers.cell.ornn import ORNN
from recurra.mixers.cell.para_gru import ParaGRU
from recurra.mixers.cell.para_lstm import ParaLSTM
from recurra.mixers.cell.rhn import RHN
from recurra.mixers.cell.slstm import SLSTM
from recurra.mixers.cell.transient_states import TransientStates
from recurra.mixers.cell.travelling_waves import TravellingWaves
from recurra.mixers.cell.unicornn import UnICORNN
from recurra.mixers.cell.urnn import URNN
from recurra.mixers.cell.wave_rnn import WaveRNN
from recurra.mixers.delta.comba import Comba
from recurra.mixers.delta.deltanet import DeltaNet
from recurra.mixers.delta.deltaproduct import DeltaProduct
from recurra.mixers.delta.gated_deltanet import GatedDeltaNet
from recurra.mixers.delta.kda import KDA
from recurra.mixers.delta.rwkv7 import RWKV7
from recurra.mixers.descent.memora import Memora
from recurra.mixers.descent.miras import Miras
from recurra.mixers.descent.moneta import Moneta
from recurra.mixers.descent.titans import Titans
from recurra.mixers.descent.ttt_linear import TTTLinear
from recurra.mixers.descent.ttt_mlp import TTTMLP
from recurra.mixers.descent.yaad import Yaad
from recurra.mixers.diag.dss import DSS
from recurra.mixers.diag.gateloop import GateLoop
from recurra.mixers.diag.gss import GSS
from recurra.mixers.diag.h3 import H3
from recurra.mixers.diag.hgrn import HGRN
from recurra.mixers.diag.hyena import Hyena
from recurra.mixers.diag.liquid_s4 import LiquidS4
from recurra.mixers.diag.lru import LRU
from recurra.mixers.diag.mamba import Mamba
from recurra.mixers.diag.mega import Mega
from recurra.mixers.diag.mingru import MinGRU
from recurra.mixers.diag.minlstm import MinLSTM
from recurra.mixers.diag.minmax import MinMax
from recurra.mixers.diag.parallel_linear_rnn import ParallelLinearRNN
from recurra.mixers.diag.qrnn import QRNN
from recurra.mixers.diag.rg_lru import RGLRU
from recurra.mixers.diag.rsa import RSA
from recurra.mixers.diag.s4d import S4D
from recurra.mixers.diag.s5 import S5
from recurra.mixers.diag.sru import SRU
from recurra.mixers.grid.plstm import PLSTM
from recurra.mixers.outer.aaren import Aaren
from recurra.mixers.outer.abc import ABC
from recurra.mixers.outer.aft import AFT
from recurra.mixers.outer.channel_mix import ChannelMix
from recurra.mixers.outer.cosformer import CosFormer
from recurra.mixers.outer.fast_weights import FastWeights
from recurra.mixers.outer.flash_gau import FlashGAU
from recurra.mixers.outer.gla import GLA
from recurra.mixers.outer.gsa import GSA
from recurra.mixers.outer.hgrn2 import HGRN2
from recurra.mixers.outer.linear_attention import LinearAttention
from recurra.mixers.outer.mamba2 import Mamba2
from recurra.mixers.outer.mamba3 import Mamba3
from recurra.mixers.outer.mesanet import MesaNet
from recurra.mixers.outer.mlstm import MLSTM
from recurra.mixers.outer.retnet import RetNet
from recurra.mixers.outer.rfa import RFA
from recurra.mixers.outer.rwkv4 import RWKV4
from recurra.mixers.outer.rwkv5 import RWKV5
from recurra.mixers.outer.rwkv6 import RWKV6
from recurra.mixers.outer.transnormer import TransNormer
from recurra.mixers.segment.armt import ARMT
from recurra.mixers.segment.block_recurrent import BlockRecurrent
from recurra.mixers.segment.infini_attention import InfiniAttention
from recurra.mixers.segment.lm2 import LM2
from recurra.mixers.segment.rmt import RMT
from recurra.mixers.segment.temporal_latent_bottleneck import TemporalLatentBottleneck
from recurra.mixers.segment.titans_mac import TitansMAC
from recurra.mixers.segment.titans_mag import TitansMAG
from recurra.mixers.segment.titans_mal import TitansMAL
from recurra.mixers.segment.transformer_xl import TransformerXL
from recurra.mixers.segment.trc2 import TRC2
from recurra.mixers.window.attention import Attention
from recurra.mixers.window.sliding_window import SlidingWindow

MIXERS: dict[str, type[Mixer]] = {
    "elman": Elman,
    "lstm": LSTM,
    "gru": GRU,
    "mingru": MinGRU,
    "minlstm": MinLSTM,
    "lru": LRU,
    "mamba": Mamba,
    "minmax": MinMax,
    "parallel_linear_rnn": ParallelLinearRNN,
    "qrnn": QRNN,
    "sru": SRU,
    "hgrn": HGRN,
    "gateloop": GateLoop,
    "rg_lru": RGLRU,
    "linear_attention": LinearAttention,
    "retnet": RetNet,
    "gla": GLA,
    "mamba2": Mamba2,
    "deltanet": DeltaNet,
    "gated_deltanet": GatedDeltaNet,
    "deltaproduct": DeltaProduct,
    "kda": KDA,
    "comba": Comba,
    "hgrn2": HGRN2,
    "transnormer": TransNormer,
    "rfa": RFA,
    "cosformer": CosFormer,
    "gsa": GSA,
    "abc": ABC,
    "mesanet": MesaNet,
    "mamba3": Mamba3,
    "flash_gau": FlashGAU,
    "fast_weights": FastWeights,
    "fast_weights_rnn": FastWeightsRNN,
    "attention": Attention,
    "sliding_window": SlidingWindow,
    "lm2": LM2,
    "transformer_xl": TransformerXL,
    "rmt": RMT,
    "armt": ARMT,
    "infini_attention": InfiniAttention,
    "temporal_latent_bottleneck": TemporalLatentBottleneck,
    "block_recurrent": BlockRecurrent,
    "trc2": TRC2,
    "dss": DSS,
    "gss": GSS,
    "h3": H3,
    "liquid_s4": LiquidS4,
    "s4d": S4D,
    "s5": S5,
    "mega": Mega,
    "aft": AFT,
    "rwkv4": RWKV4,
    "rwkv5": RWKV5,
    "rwkv6": RWKV6,
    "rwkv7": RWKV7,
    "channel_mix": ChannelMix,
    "mlstm": MLSTM,
    "slstm": SLSTM,
    "aaren": Aaren,
    "rsa": RSA,
    "hyena": Hyena,
    "s4": S4,
    "lssl": LSSL,
    "lmu": LMU,
    "hippo": HiPPO,
    "plstm": PLSTM,
    "jordan": Jordan,
    "irnn": IRNN,
    "indrnn": IndRNN,
    "mgu": MGU,
    "rhn": RHN,
    "urnn": URNN,
    "ornn": ORNN,
    "goru": GORU,
    "elstm": ELSTM,
    "para_gru": ParaGRU,
    "para_lstm": ParaLSTM,
    "cornn": CoRNN,
    "unicornn": UnICORNN,
    "horn": HORN,
    "linoss": LinOSS,
    "ctrnn": CTRNN,
    "ltc": LTC,
    "cfc": CfC,
    "conv_lstm": ConvLSTM,
    "neural_ode": NeuralODE,
    "ode_rnn": ODERNN,
    "gru_d": GRUD,
    "neural_cde": NeuralCDE,
    "wave_rnn": WaveRNN,
    "fernn": FERNN,
    "travelling_waves": TravellingWaves,
    "echo_state": EchoState,
    "transient_states": TransientStates,
    "ttt_linear": TTTLinear,
    "ttt_mlp": TTTMLP,
    "titans": Titans,
    "titans_mac": TitansMAC,
    "titans_mag": TitansMAG,
    "titans_mal": TitansMAL,
    "miras": Miras,
    "moneta": Moneta,
    "yaad": Yaad,
    "memora": Memora,
    "ntm": NTM,
    "dnc": DNC,
}
