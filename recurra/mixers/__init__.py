"""The architectures, by name. To add one: write its file, add its line here, write its test."""

from recurra.mixers.base import Mixer as Mixer

MIXERS: dict[str, type[Mixer]] = {}
