"""Which recurrence can count to two? Trained on parity at length 16, asked at length 256."""

import torch

from recurra import Clock
from recurra.models import MODELS
from recurra.tasks import TASKS

torch.set_num_threads(1)
task = TASKS["parity"]()


def train(pattern: str, steps: int = 150) -> list[float]:
    """Accuracy at length 16 and at 256 after `steps` batches of 64."""
    torch.manual_seed(0)
    model = MODELS[task.head](**task.model_arguments(), width=32, depth=1, pattern=pattern)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(steps):
        batch = task.batch("train", step, 64, 16, seed=0)
        outputs, _ = model(batch.inputs, None, Clock(batch.reset, batch.valid))
        loss = task.loss(outputs, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    scores = []
    for length in (16, 256):
        batch = task.batch("test", 0, 64, length, seed=1)
        with torch.no_grad():
            total, count = task.score(model(batch.inputs, None, Clock(batch.reset, batch.valid))[0], batch)
        scores.append(total / count)
    return scores


if __name__ == "__main__":
    print(f"{'':18s} T = 16  T = 256   (chance {task.chance:.2f})")
    for pattern in ("lstm", "gru", "mamba", "linear_attention"):
        short, long = train(pattern)
        print(f"{pattern:18s} {short:6.3f}  {long:7.3f}")
