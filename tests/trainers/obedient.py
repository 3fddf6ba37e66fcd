"""A trainer that waits its turn, reports two epochs, and succeeds."""

import sys
import time
from pathlib import Path

from imgcls.jobs import JobWriter

writer = JobWriter(Path(sys.argv[-1]))
writer.wait_turn()
for epoch in (1, 2):
    writer.emit(
        "training", progress=epoch / 2, epoch=epoch, epochs=2, metrics={"val_loss": 1 / epoch}
    )
    time.sleep(0.3)
writer.succeed(f"{writer.request.name}:1")
