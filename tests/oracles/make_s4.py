"""Write s4.safetensors: a kernel of the authors' S4 by its Cauchy product, in float64.

pip install einops==0.8.2 scipy==1.17.1; python tests/oracles/make_s4.py PATH, of models/s4/s4.py in
https://github.com/state-spaces/s4 at e757cef57d89e448c413de7325ed5601aceaac13.
"""

import importlib.util
import pathlib
import sys
import types

import torch
from safetensors.torch import save_file

if __name__ == "__main__":
    # it asks for a trainer, for its messages alone
    utilities = types.ModuleType("pytorch_lightning.utilities")
    utilities.rank_zero_only = lambda function: function
    sys.modules["pytorch_lightning"] = types.ModuleType("pytorch_lightning")
    sys.modules["pytorch_lightning.utilities"] = utilities
    spec = importlib.util.spec_from_file_location("s4", sys.argv[1])
    s4 = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(s4)

    torch.manual_seed(0)
    features, length = 4, 33
    kernel = s4.SSMKernelDPLR(
        d_model=features, d_state=8, l_max=length, init="legs", n_ssm=features,
        dt_transform="exp", real_transform="exp", imag_transform="none", backend="naive", dt_min=0.01, dt_max=0.5,
    ).double()  # fmt: skip
    with torch.no_grad():
        for p in kernel.parameters():
            p.add_(0.1 * torch.randn_like(p))
        # its own C is turned into one that holds for this length only
        weights = {f"weight.{name}": p.detach().clone() for name, p in kernel.named_parameters()}
        k, _ = kernel(L=length)
    made_by = {"package": "state-spaces/s4", "version": "e757cef57d89e448c413de7325ed5601aceaac13"}
    numbers = {name: p.contiguous() for name, p in weights.items()} | {"kernel": k[0].contiguous()}
    save_file(numbers, pathlib.Path(__file__).with_name("s4.safetensors"), made_by)
