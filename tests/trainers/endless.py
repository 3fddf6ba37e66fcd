"""A trainer that waits its turn and then trains until somebody stops it."""

import sys
import time
from pathlib import Path

from imgcls.jobs import JobWriter

writer = JobWriter(Path(sys.argv[-1]))
writer.wait_turn()
while True:
    writer.emit("training", progress=0.5, epoch=1, epochs=2)
    time.sleep(0.05)
