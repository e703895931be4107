"""Memory for large arrays: what is asked for, and who is not overruled."""

import os
import subprocess
import sys

import pytest

from recurra.pages import KEPT, MAPPED, SWITCH

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these settings")
NAMES = (SWITCH, KEPT[0], MAPPED[0])
SAY = f"import recurra, os; print(*[os.environ.get(x) for x in {NAMES!r}])"


def said(**given):
    """What the settings are after the import, in an environment with those `given`."""
    environment = {x: y for x, y in os.environ.items() if x not in NAMES} | given
    done = subprocess.run([sys.executable, "-c", SAY], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_huge_pages_are_asked_for_and_freed_memory_is_kept():
    assert said() == ["1", str(KEPT[2]), str(MAPPED[2])]


def test_who_wants_neither_has_neither():
    assert said(**{SWITCH: "0"}) == ["0", "None", "None"]


def test_a_bound_that_was_set_stays():
    assert said(**{KEPT[0]: "1000"}) == ["1", "1000", str(MAPPED[2])]


def test_the_library_takes_both_bounds():
    import ctypes

    assert all(ctypes.CDLL(None).mallopt(number, size) == 1 for _, number, size in (KEPT, MAPPED))
