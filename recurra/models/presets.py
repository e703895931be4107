"""Published sizes by name: the arguments of `LanguageModel` at which it is the model that the authors released.

The stack is ours: RMSNorm before every mixer and MLP, a gated MLP unless the paper's own block is a mixer of the table.
Where a paper's stack differs in that, the parameters differ by what the comment says; a test counts them.
"""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # Gu & Dao 2023, https://arxiv.org/abs/2312.00752, table 12; https://huggingface.co/state-spaces/mamba-130m
    "mamba_130m": {"vocabulary": 50280, "width": 768, "depth": 24, "pattern": "mamba", "hidden": 0},
    "mamba_370m": {"vocabulary": 50280, "width": 1024, "depth": 48, "pattern": "mamba", "hidden": 0},
    # Dao & Gu 2024, https://arxiv.org/abs/2405.21060; https://huggingface.co/state-spaces/mamba2-130m
    "mamba2_130m": {
        "vocabulary": 50288, "width": 768, "depth": 24, "pattern": "mamba2", "hidden": 0,
        "mixers": {"mamba2": {"heads": 24, "state_size": 128}},
    },
    # Peng et al. 2023, https://arxiv.org/abs/2305.13048, table 2; theirs has a bias in each norm, and a norm of the
    # embedding, as have the next three
    "rwkv4_169m": {
        "vocabulary": 50277, "width": 768, "depth": 24, "pattern": "rwkv4,channel_mix", "hidden": 0, "tied": False,
    },
    # Peng et al. 2024, https://arxiv.org/abs/2404.05892, table 2: Eagle 0.4B
    "rwkv5_400m": {
        "vocabulary": 65536, "width": 1024, "depth": 48, "pattern": "rwkv5,channel_mix", "hidden": 0, "tied": False,
        "mixers": {"rwkv5": {"heads": 16}, "channel_mix": {"hidden": 3584}},
    },
    # the same, table 2: Finch 1.6B
    "rwkv6_1b6": {
        "vocabulary": 65536, "width": 2048, "depth": 48, "pattern": "rwkv6,channel_mix", "hidden": 0, "tied": False,
        "mixers": {"rwkv6": {"heads": 32}, "channel_mix": {"hidden": 7168}},
    },
    # Peng et al. 2025, https://arxiv.org/abs/2503.14456: Goose 0.1B; its ranks are those the mixer chooses by itself
    "rwkv7_190m": {
        "vocabulary": 65536, "width": 768, "depth": 24, "pattern": "rwkv7,channel_mix", "hidden": 0, "tied": False,
        "mixers": {"rwkv7": {"heads": 12}, "channel_mix": {"receptance": False}},
    },
    # Sun et al. 2023, https://arxiv.org/abs/2307.08621, table 2: 1.3B; the MLP and vocabulary as in
    # https://huggingface.co/fla-hub/retnet-1.3B-100B
    "retnet_1b3": {
        "vocabulary": 32000, "width": 2048, "depth": 24, "pattern": "retnet", "hidden": 2816, "tied": False,
        "mixers": {"retnet": {"heads": 8}},
    },
    # Yang et al. 2024, https://arxiv.org/abs/2312.06635; https://github.com/fla-org/flame/tree/main/configs, as the
    # next two
    "gla_340m": {
        "vocabulary": 32000, "width": 1024, "depth": 24, "pattern": "gla", "hidden": 2816, "tied": False,
        "mixers": {"gla": {"heads": 4}},
    },
    # Yang et al. 2024, https://arxiv.org/abs/2406.06484
    "deltanet_340m": {
        "vocabulary": 32000, "width": 1024, "depth": 24, "pattern": "deltanet", "hidden": 2816, "tied": False,
        "mixers": {"deltanet": {"heads": 8}},
    },
    # Yang et al. 2025, https://arxiv.org/abs/2412.06464; the file's name says 340M, its model has 512M
    "gated_deltanet_340m": {
        "vocabulary": 32000, "width": 1024, "depth": 21, "pattern": "gated_deltanet", "hidden": 2816, "tied": False,
        "mixers": {"gated_deltanet": {"heads": 6, "head_size": 256}},
    },
    # Beck et al. 2024, https://arxiv.org/abs/2405.04517, table 1: xLSTM[1:0] of 350M
    "xlstm_350m": {
        "vocabulary": 50257, "width": 1024, "depth": 48, "pattern": "mlstm", "hidden": 0, "tied": False,
        "mixers": {"mlstm": {"stack": 48}},
    },
    # De et al. 2024, https://arxiv.org/abs/2402.19427, as https://huggingface.co/google/recurrentgemma-2b; theirs has
    # one key and value for all heads, and biases in the MLP
    "griffin_2b": {
        "vocabulary": 256000, "width": 2560, "depth": 26, "pattern": "rg_lru*2,sliding_window", "hidden": 7680,
        "mixers": {"rg_lru": {"blocks": 10}, "sliding_window": {"heads": 10, "window": 2048}},
    },
    # Lieber et al. 2024, https://arxiv.org/abs/2403.19887; https://huggingface.co/ai21labs/Jamba-v0.1: 52B. Theirs has
    # 8 keys and values for 32 heads, no positions, and norms of a Mamba layer's time step, B and C
    "jamba_52b": {
        "vocabulary": 65536, "width": 4096, "depth": 32, "pattern": "mamba*4,attention,mamba*3", "hidden": 14336,
        "tied": False, "mixers": {"attention": {"heads": 32}}, "feed_forward": "mlp,experts",
        "memories": {
            "experts": {"experts": 16, "top": 2, "hidden": 14336, "normalised": False, "balance": 0.001},
        },
    },
    # Glorioso et al. 2024, https://arxiv.org/abs/2405.16712; https://huggingface.co/Zyphra/Zamba-7B-v1. Theirs has a
    # shared block that reads the embedding beside the stream, twice as wide, a map of its own for what is read at each
    # depth, a GELU, and two heads in a Mamba layer: 4 % more parameters
    "zamba_7b": {
        "vocabulary": 32000, "width": 3712, "depth": 89,
        "pattern": "mamba*2,attention,mamba*5,attention" + ",mamba*6,attention" * 11 + ",mamba*3", "hidden": 14848,
        "mixers": {"attention": {"heads": 16}}, "shared": ["attention"],
        "feed_forward": "none*2,mlp,none*5,mlp" + ",none*6,mlp" * 11 + ",none*3",
    },
    # IBM 2025, https://huggingface.co/ibm-granite/granite-4.0-h-tiny: 7B, of 64 experts 6, and a shared one of twice
    # their size. Theirs has 4 keys and values for 12 heads, no positions, and factors at the embedding and the branches
    "granite4_h_tiny": {
        "vocabulary": 100352, "width": 1536, "depth": 40, "pattern": "mamba2*5,attention,mamba2*4",
        "mixers": {"mamba2": {"heads": 48, "state_size": 128}, "attention": {"heads": 12}}, "feed_forward": "experts",
        "memories": {"experts": {"experts": 64, "top": 6, "hidden": 512, "shared": 2}},
    },
    # NVIDIA 2025, https://arxiv.org/abs/2504.03624: 8B; https://docs.nvidia.com/nemo/megatron-bridge/latest/models/llm/
    # nemotronh.html. Each of its layers is a mixer or an MLP: two are one block here. Theirs has 8 keys and values for
    # 32 heads
    "nemotron_h_8b": {
        "vocabulary": 131072, "width": 4096, "depth": 28,
        "pattern": "mamba2*4,attention" + ",mamba2*5,attention" * 3 + ",mamba2*5", "hidden": 21504, "tied": False,
        "mixers": {"mamba2": {"heads": 128, "state_size": 128, "groups": 8}, "attention": {"heads": 32}},
        "feed_forward": "squared_mlp*3,none,squared_mlp" + ",squared_mlp*4,none,squared_mlp" * 3 + ",squared_mlp*5",
    },
    # Ren et al. 2024, https://arxiv.org/abs/2406.07522; https://github.com/microsoft/Samba/blob/main/lit_gpt/config.py,
    # as the next
    "samba_421m": {
        "vocabulary": 32000, "width": 1536, "depth": 12, "pattern": "mamba,sliding_window", "hidden": 4096,
        "mixers": {"sliding_window": {"heads": 12, "window": 2048}},
    },
    "samba_1b3": {
        "vocabulary": 32000, "width": 2304, "depth": 18, "pattern": "mamba,sliding_window", "hidden": 6144,
        "mixers": {"sliding_window": {"heads": 18, "window": 2048}},
    },
}  # fmt: skip
