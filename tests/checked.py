"""Types and shapes are checked at every call of recurra, once.

The import hook of `--jaxtyping-packages` puts `jaxtyping.jaxtyped` above every function. That one binds the signature
again, checks the arguments twice, and does so for functions that name no shape or nothing at all: as much time as the
tests themselves take. `checked` stands in its place: one check a call, in a context of its own where shapes are named,
and none of what has no annotation. Errors are TypeErrors, as those of jaxtyping's are.
"""

import functools
import inspect
import typing

import jaxtyping
from beartype import BeartypeConf, beartype

jaxtyped = jaxtyping.jaxtyped
_typed = beartype(conf=BeartypeConf(violation_type=TypeError))


def checked(*, typechecker):
    """What is called as `jaxtyping.jaxtyped(typechecker=...)` is."""

    def decorate(what):
        if not inspect.isfunction(what) or inspect.isgeneratorfunction(what):
            return jaxtyped(what, typechecker=typechecker)
        if not what.__annotations__:
            return what
        try:
            typing.get_type_hints(what, include_extras=True)
        except NameError:
            # a name that is known only later, or elsewhere: jaxtyping lets anything through there
            return jaxtyped(what, typechecker=typechecker)
        typed = _typed(what)
        return _shaped(what, typed) if "[Tensor" in str(what.__annotations__) else typed

    return decorate


def _shaped(function, typed):
    """`typed`, where a letter means one size from the arguments to what is returned."""

    @functools.wraps(function)
    def run(*arguments, **keywords):
        if jaxtyping.config.jaxtyping_disable:
            return function(*arguments, **keywords)
        with jaxtyped("context"):
            return typed(*arguments, **keywords)

    return run
