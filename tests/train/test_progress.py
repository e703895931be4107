"""What is shown, on a terminal and elsewhere."""

import io

from recurra.train.board import Board, LineBoard, LiveBoard, QuietBoard, Standing
from recurra.train.progress import Bar, Lines, Progress, Quiet

STEP = {"step": 2, "tokens": 512, "seconds": 0.5, "loss": 1.3863, "grad_norm": 1.0, "lr": 0.1, "tokens_per_second": 9.0}
SCORE = {"step": 2, "tokens": 512, "seconds": 0.5, "held_out": 2.5, "measure": "bits per byte"}


def shown(make, nats: bool, steps: int | None = 4) -> str:
    out = io.StringIO()
    progress: Progress = make(out)
    with progress:
        progress.begin(0, steps, nats)
        progress.line(STEP)
        progress.line(SCORE)
        progress.say("resumed [from] here")
    return out.getvalue()


def test_a_bar_and_lines_tell_loss_bits_pace_and_score():
    for make in (Bar, Lines):
        said = shown(make, nats=True)
        assert "loss 1.3863 (2.000 bits)  1,024 tokens/s" in said, make
        assert "held-out bits per byte 2.5" in said and "resumed [from] here" in said
        assert "2/4" in said
        assert "bits)" not in shown(make, nats=False), "an error of numbers is no surprise in bits"
        assert "4" not in shown(make, nats=False, steps=None).replace("1.3863  1,024", ""), "a stream has no last step"
    assert shown(lambda out: Quiet(), nats=True) == ""


def test_boards_tell_every_run():
    standings = [Standing("lstm-0", 10), Standing("minmax-0", 10)]
    for make in (LiveBoard, LineBoard):
        out = io.StringIO()
        board: Board = make(out)
        with board:
            standings[0].read([STEP, SCORE])
            standings[0].status = "training"
            board.show(standings)
            standings[0].status, standings[1].status = "done", "failed"
            board.show(standings)
        for word in ("lstm-0", "2/10", "1.386", "2.5", "1,024", "done", "minmax-0", "failed"):
            assert word in out.getvalue(), (make, word)
        assert standings[0].left == 2.0
        standings[0].status = standings[1].status = "waiting"
    with QuietBoard() as quiet:
        quiet.show(standings)
