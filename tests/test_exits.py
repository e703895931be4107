"""How a command ends where it is not the command's own doing: while it imports, with closed streams, without memory."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from recurra.exits import complaint

DEAF = """
import time
print("importing", flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    pass
print("lost")
"""


def start(code, **keywords):
    """Code in a process of its own that hears Ctrl-C."""
    heard = dict(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([sys.executable, "-c", code], **{**pipes, **heard, **keywords})


@pytest.mark.parametrize(("imported", "code"), [
    ("deaf", "from recurra.exits import polite\nwith polite(): import deaf"),
    ("typer", "from recurra.__main__ import main\nmain()"),
])  # fmt: skip
def test_ctrl_c_is_heard_where_a_library_that_is_imported_loses_it(tmp_path, imported, code):
    (tmp_path / f"{imported}.py").write_text(DEAF)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"}
    with start(code, env=environment) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=300)
    assert (process.returncode, out, said) == (130, "", "\nrecurra: stopped\n")


def test_elsewhere_ctrl_c_raises_as_ever():
    code = "import time\nfrom recurra.exits import polite\nwith polite():\n"
    code += "    try: print('here', flush=True); time.sleep(600)\n    finally: print('saved')"
    with start(code) as process:
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=300)
    assert (process.returncode, out, said) == (130, "saved\n", "\nrecurra: stopped\n")


def test_streams_that_were_closed_lead_nowhere():
    code = "import sys\nfrom recurra.exits import open_streams\nopen_streams()\n"
    code += "print('nobody reads it')\nprint('nor that', file=sys.stderr)\nassert sys.stdin.read() == ''"
    closed = dict(stdout=None, stderr=None, preexec_fn=lambda: [os.close(number) for number in (0, 1, 2)])
    with start(code, **closed) as process:
        assert process.wait(timeout=300) == 0


def test_what_memory_was_asked_for_in_vain_is_for_the_user_to_put_right():
    asked = (
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"
    )
    for error in (MemoryError(), RuntimeError(asked), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")):
        assert complaint(error) == "there is not enough memory: make the model, the batch or its rows smaller"
    assert complaint(RuntimeError("a bug")) is None


def test_what_a_library_quotes_of_the_system_is_said_with_its_file(tmp_path):
    with pytest.raises(SafetensorError) as caught:
        save_file({"x": torch.zeros(1)}, tmp_path / "missing" / "state")
    said = complaint(caught.value)
    assert said and said.startswith(str(tmp_path / "missing")) and said.endswith(": No such file or directory")


def test_ctrl_c_is_heard_while_help_is_written():
    stopped = "import typer.core as core\ndef stop(*_): raise KeyboardInterrupt\ncore.TyperGroup.make_context = stop"
    with start(
        f"{stopped}\nimport sys\nsys.argv = ['recurra', '-h']\nfrom recurra.__main__ import main\nmain()"
    ) as process:
        out, said = process.communicate(timeout=300)
    assert (process.returncode, out, said) == (130, "", "\nrecurra: stopped\n")
