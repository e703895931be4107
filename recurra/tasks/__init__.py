"""The tasks, by name. To add one: write its file, add its line here, write its test."""

from recurra.tasks.base import Batch as Batch, Task as Task

TASKS: dict[str, type[Task]] = {}
