"""Recurrent sequence models: every architecture on a handful of shared scans, under one law: a cut changes nothing."""

from recurra.clock import Clock as Clock
from recurra.mixers import MIXERS as MIXERS
from recurra.ops.scan import use as use

__version__ = "0.1.0"
