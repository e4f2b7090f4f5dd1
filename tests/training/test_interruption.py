"""A training process killed without warning, and the same fit begun again.

The killed process runs this very file.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from kdplatform.data import DataFacts, Split
from kdplatform.methods import build_method
from kdplatform.models import build_model
from kdplatform.models.normalization import InputNormalization
from kdplatform.settings.schema import MethodConfig, TrainingConfig
from kdplatform.training import EpochRecord, FitResult, fit


def train(checkpoint: Path, pause: float) -> tuple[torch.nn.Module, FitResult]:
    """Trains six epochs, printing the number of each and then pausing."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (40, 1, 8, 8), generator=generator, dtype=torch.uint8)
    split = Split(inputs, torch.arange(40) % 4, np.arange(40), pd.DataFrame(index=range(40)))
    torch.manual_seed(0)
    network = build_model("lenet5", DataFacts((1, 8, 8), ("a", "b", "c", "d")))
    model = InputNormalization(network, torch.tensor([0.5]), torch.tensor([0.3]))

    def report(record: EpochRecord) -> None:
        print(record.epoch, flush=True)
        time.sleep(pause)

    result = fit(
        model,
        split,
        build_method(MethodConfig()),
        TrainingConfig(model="lenet5", epochs=6, batch_size=20, learning_rate=0.01),
        seed=0,
        role="student",
        device=torch.device("cpu"),
        checkpoint=checkpoint,
        identity="run",
        on_epoch=report,
    )
    return model, result


def test_a_killed_process_goes_on_from_its_last_epoch(tmp_path: Path) -> None:
    checkpoint = tmp_path / "killed"
    command = [sys.executable, __file__, str(checkpoint)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while (line := process.stdout.readline()).strip() != "3":
            assert line, "the process ended by itself"
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL

    resumed_model, resumed = train(checkpoint, pause=0.0)
    model, uninterrupted = train(tmp_path / "uninterrupted", pause=0.0)
    assert uninterrupted.restored_epochs == 0
    assert resumed.restored_epochs in (3, 4, 5)
    losses = [record.train_loss for record in resumed.records]
    assert losses == [record.train_loss for record in uninterrupted.records]
    for name, value in resumed_model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


if __name__ == "__main__":
    train(Path(sys.argv[1]), pause=0.05)
