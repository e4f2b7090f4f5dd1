"""A training process killed without warning, and the same command given again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = """
import dataclasses, hashlib, json, sys, time
from pathlib import Path
import numpy as np, pandas as pd, torch
from kdplatform.config import TrainingConfig
from kdplatform.data import Split
from kdplatform.models import InputNormalization, build_model
from kdplatform.objectives import build_objective
from kdplatform.training import fit

torch.set_num_threads(1)
checkpoint, pause = Path(sys.argv[1]), float(sys.argv[2])
generator = torch.Generator().manual_seed(0)
inputs = torch.randint(0, 256, (40, 1, 8, 8), generator=generator, dtype=torch.uint8)
split = Split(inputs, torch.arange(40) % 4, np.arange(40), pd.DataFrame(index=range(40)))
config = TrainingConfig(model="lenet5", epochs=6, batch_size=20, learning_rate=0.01)
torch.manual_seed(0)
network = build_model("lenet5", in_channels=1, image_size=8, num_classes=4)
model = InputNormalization(network, torch.tensor([0.5]), torch.tensor([0.3]))

def report(record):
    print(record.epoch, flush=True)
    time.sleep(pause)

result = fit(model, split, build_objective(None), config, seed=0, role="student",
             device=torch.device("cpu"), checkpoint=checkpoint, identity="run", on_epoch=report)
weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
print(json.dumps({"restored": result.restored_epochs,
                  "losses": [record.train_loss for record in result.records],
                  "weights": hashlib.sha256(weights).hexdigest()}))
"""


def command(checkpoint: Path, pause: float) -> list[str]:
    return [sys.executable, "-c", SCRIPT, str(checkpoint), str(pause)]


def finish(checkpoint: Path) -> dict[str, object]:
    done = subprocess.run(command(checkpoint, 0.0), capture_output=True, text=True, check=True)
    outcome: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return outcome


def test_a_killed_process_goes_on_from_its_last_epoch(tmp_path: Path) -> None:
    uninterrupted = finish(tmp_path / "uninterrupted")
    checkpoint = tmp_path / "killed"
    with subprocess.Popen(command(checkpoint, 0.02), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "3":
            assert process.poll() is None
        time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL

    resumed = finish(checkpoint)
    assert resumed.pop("restored") in (3, 4, 5)
    assert uninterrupted.pop("restored") == 0
    assert resumed == uninterrupted
