"""Training: one run, or many compared. A run is a folder; whatever stops it, it goes on to the same numbers."""

from recurra.train.compare import CompareConfig as CompareConfig, compare as compare, read_comparison as read_comparison
from recurra.train.config import Config as Config
from recurra.train.errors import Incomplete as Incomplete, RunError as RunError, Stopped as Stopped
from recurra.train.loop import read_settings as read_settings, train as train
from recurra.train.result import Result as Result
