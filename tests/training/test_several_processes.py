"""One model trained by two processes, held against the same training in one.

Both processes run this very file, once for all tests. Rank 0 trains alone too.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
for folder in (HERE.parent, HERE.parent / "methods", HERE):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import numpy as np  # noqa: E402
import torch.distributed as dist  # noqa: E402
from fits import (  # noqa: E402
    AUGMENTED,
    CPU,
    Dropout,
    OrderSpy,
    augmented,
    draw_split,
    kd,
    train,
)
from PIL import Image  # noqa: E402
from test_every_method import CASES, config_of, trained  # noqa: E402

from kdplatform.data import Dataset, Split, StreamedInputs  # noqa: E402
from kdplatform.errors import DivergedError, UserError  # noqa: E402
from kdplatform.methods import (  # noqa: E402
    Batch,
    Loss,
    Method,
    Run,
    build_method,
    mlkd,
)
from kdplatform.settings.schema import MethodConfig, TrainingConfig  # noqa: E402
from kdplatform.training import ALONE, FitResult, Ranks, Teacher, check_fit  # noqa: E402
from kdplatform.training.prediction import predict_logits  # noqa: E402
from kdplatform.training.ranks import synchronised  # noqa: E402
from kdplatform.training.teacher import view_logits  # noqa: E402

DATASET = Dataset(
    name="bright",
    digest="0",
    class_names=("a", "b", "c", "d"),
    attributes=(),
    train=draw_split(51, 0),
    val=draw_split(21, 1000),
    test=draw_split(20, 2000),
)
CONFIG = TrainingConfig(
    model="lenet5", epochs=2, batch_size=16, learning_rate=0.02, precision="fp32"
)
WITH_NORM = CONFIG.model_copy(update={"model": "resnet20", "epochs": 1})
SHARED = [case for case in CASES if not build_method(config_of(case)).needs.single_process]


def outcome(pair: tuple[nn.Module, FitResult]) -> dict[str, Any]:
    """Returns what is compared: weights, curves, and what the model says about the test split."""
    model, result = pair
    logits = predict_logits(model, DATASET.test.inputs, device=CPU)
    curves = [(own.train_loss, own.train_accuracy, own.val_loss) for own in result.records]
    restored = result.restored_epochs
    return {"state": model.state_dict(), "curves": curves, "logits": logits, "restored": restored}


class Noise(Method[MethodConfig]):
    """Keeps what a model that draws its own numbers says of equal inputs."""

    def __init__(self) -> None:
        super().__init__(MethodConfig())
        self.outputs: list[Tensor] = []

    def loss(self, batch: Batch, run: Run) -> Loss:
        student = run.student(torch.ones_like(batch.inputs))
        self.outputs.append(student.logits.detach().clone())
        return Loss(student.logits.square().mean(dim=1), student, {})


def streamed(ranks: Ranks, folder: Path) -> tuple[nn.Module, FitResult]:
    """Trains on images in files, and notes in `read` which this process opened."""
    images = DATASET.train.inputs
    assert isinstance(images, Tensor)
    folder.mkdir(exist_ok=True)
    files = [f"{row}.png" for row in range(len(images))]
    for image, file in zip(images, files, strict=True):
        if not (folder / file).exists():
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / file)
    inputs = Opened(folder, files, size=8, workers=0)
    split = Split(inputs, DATASET.train.labels, DATASET.train.ids, DATASET.train.columns)
    own = Dataset("files", "1", DATASET.class_names, (), split, DATASET.val, DATASET.test)
    pair = train(own, CONFIG.model_copy(update={"epochs": 1}), ranks=ranks)
    (folder / f"read-{ranks.rank}-of-{ranks.size}").write_text(str(len(Opened.rows)))
    Opened.rows.clear()
    return pair


class Opened(StreamedInputs):
    """Remembers which of its files were decoded."""

    rows: ClassVar[list[int]] = []

    def decode(self, row: int, crops: Any = None) -> Tensor:
        Opened.rows.append(row)
        return super().decode(row, crops)


def stopped(ranks: Ranks, saved: Path) -> str:
    """Ends after the first of two epochs, as every rank does when one is gone."""

    class StopError(Exception):
        pass

    def stop(record: Any) -> None:
        raise StopError

    with pytest.raises(StopError):
        train(
            DATASET,
            CONFIG,
            ranks=ranks,
            on_epoch=stop,
            checkpoint=saved if ranks.first else None,
            identity="run",
        )
    return "stopped"


def resumed(ranks: Ranks, folder: Path) -> tuple[nn.Module, FitResult]:
    """Goes on with what one process began, of which rank 0 alone has the file."""
    if not ranks.first:
        return train(DATASET, CONFIG, ranks=ranks)
    begun = folder / f"begun-{ranks.size}"  # which ends as the checkpoint of the last epoch
    shutil.copy(folder / "saved-1", begun)
    return train(DATASET, CONFIG, ranks=ranks, checkpoint=begun, identity="run")


def diverged(ranks: Ranks) -> str:
    with pytest.raises(DivergedError) as caught:
        train(DATASET, CONFIG.model_copy(update={"learning_rate": 1e30}), ranks=ranks)
    return str(caught.value)


def order(ranks: Ranks) -> list[int]:
    spy = OrderSpy()
    train(DATASET, CONFIG, method=spy, ranks=ranks)
    return spy.ids


def noise(ranks: Ranks) -> Tensor:
    spy = Noise()
    torch.manual_seed(0)
    train(DATASET, CONFIG, model=Dropout(), method=spy, ranks=ranks)
    return spy.outputs[0]


def taught(ranks: Ranks, **given: Any) -> tuple[nn.Module, FitResult]:
    teacher, _ = train(DATASET, CONFIG, role="teacher")
    live = Teacher(None, lambda: teacher)
    config, method = given.get("config", CONFIG), build_method(given.get("method", kd().config))
    return train(DATASET, config, role="distilled", method=method, teacher=live, ranks=ranks)


def evaluated(ranks: Ranks) -> dict[str, Tensor]:
    model, _ = train(DATASET, CONFIG)
    images = DATASET.val.inputs
    assert isinstance(images, Tensor)
    views = view_logits(model, images, augmented(CONFIG, AUGMENTED).augmentation, device=CPU)
    if not ranks.alone:
        views = view_logits(
            model, images, augmented(CONFIG, AUGMENTED).augmentation, device=CPU, ranks=ranks
        )
    return {
        "logits": ranks.predict_logits(model, images, device=CPU),
        "one": ranks.predict_logits(model, images[:1], device=CPU),
        "views": torch.stack(list(views)),
        "objects": torch.tensor(ranks.collected(ranks.rank)),
    }


# Each is run by one process and by two.
SCENARIOS: dict[str, Callable[[Ranks, Path], Any]] = {
    "plain": lambda ranks, _: outcome(train(DATASET, CONFIG, ranks=ranks)),
    "norm": lambda ranks, _: outcome(train(DATASET, WITH_NORM, ranks=ranks)),
    "clipped": lambda ranks, _: outcome(
        train(DATASET, CONFIG.model_copy(update={"gradient_clip": 0.1}), ranks=ranks)
    ),
    "augmented": lambda ranks, _: outcome(taught(ranks, config=augmented(CONFIG, AUGMENTED))),
    "taught": lambda ranks, _: outcome(taught(ranks)),
    "views": lambda ranks, _: outcome(
        taught(ranks, config=augmented(CONFIG, AUGMENTED), method=mlkd.Config(views=2))
    ),
    "streamed": lambda ranks, folder: outcome(streamed(ranks, folder / "images")),
    "order": lambda ranks, _: order(ranks),
    "noise": lambda ranks, _: noise(ranks),
    "diverged": lambda ranks, _: diverged(ranks),
    "evaluated": lambda ranks, _: evaluated(ranks),
    "stopped": lambda ranks, folder: stopped(ranks, folder / f"saved-{ranks.size}"),
    "resumed": lambda ranks, folder: outcome(resumed(ranks, folder)),
    **{f"method {case}": lambda ranks, _, case=case: method(case, ranks) for case in SHARED},
}


def method(case: str, ranks: Ranks) -> dict[str, Any]:
    state, result = trained(config_of(case), "fp32", ranks=ranks)
    return {"state": state, "curves": [own.train_loss for own in result.records]}


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    if rank == 0:
        for name, scenario in SCENARIOS.items():
            found[f"1 {name}"] = scenario(ALONE, folder)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for name, scenario in SCENARIOS.items():
        found[f"2 {name}"] = scenario(Ranks(rank, 2), folder)
    torch.save(found, folder / f"found-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    words = [sys.executable, str(Path(__file__).resolve())]
    both = [
        subprocess.Popen([*words, str(rank), str(folder)], env=env, stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    for process in both:
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said.decode()
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    known: dict[str, Any] = torch.load(folder / "found-0.pt", weights_only=True)
    return known


def assert_near(one: dict[str, Any], two: dict[str, Any], tolerance: float) -> None:
    for name, value in one["state"].items():
        torch.testing.assert_close(two["state"][name], value, atol=tolerance, rtol=tolerance)
    np.testing.assert_allclose(two["curves"], one["curves"], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", ["plain", "clipped", "augmented", "taught", "views", "streamed"])
def test_two_processes_train_what_one_trains(found: dict[str, Any], name: str) -> None:
    one, two = found[f"1 {name}"], found[f"2 {name}"]
    assert_near(one, two, 1e-5)
    torch.testing.assert_close(two["logits"], one["logits"], atol=1e-4, rtol=1e-4)
    assert torch.equal(two["logits"].argmax(1), one["logits"].argmax(1))


def test_batch_normalisation_has_the_statistics_of_the_whole_batch(found: dict[str, Any]) -> None:
    one, two = found["1 norm"]["state"], found["2 norm"]["state"]
    names = [name for name in one if "running" in name or "num_batches" in name]
    assert len(names) > 30
    for name in names:
        torch.testing.assert_close(two[name], one[name], atol=1e-4, rtol=1e-4)
    assert_near(found["1 norm"], found["2 norm"], 2e-3)


@pytest.mark.parametrize("case", SHARED)
def test_every_method_learns_the_same_from_shared_batches(found: dict[str, Any], case: str) -> None:
    assert_near(found[f"1 method {case}"], found[f"2 method {case}"], 1e-5)


def test_the_order_of_the_data_is_that_of_one_process(found: dict[str, Any]) -> None:
    assert found["2 order"] == found["1 order"]


def test_a_model_draws_other_numbers_on_every_rank(found: dict[str, Any]) -> None:
    one, two = found["1 noise"], found["2 noise"]
    half = len(two) // 2
    assert torch.equal(two[:half], one[:half])
    assert not torch.equal(two[half:], one[half:])
    assert not torch.equal(two[half:], two[:half])


def test_each_rank_reads_the_files_of_its_share(folder: Path, found: dict[str, Any]) -> None:
    read = {name: int((folder / "images" / f"read-{name}").read_text()) for name in NAMES}
    # Every process measures the channels of all images, and two show which weights are used.
    channels, probe = 51, 2
    assert read["0-of-1"] == channels + 51
    shares = [read[f"{rank}-of-2"] - channels - probe for rank in (0, 1)]
    assert sum(shares) == 51
    assert abs(shares[0] - shares[1]) <= 4  # one a batch


NAMES = ("0-of-1", "0-of-2", "1-of-2")


def test_every_example_is_evaluated_once_and_gathered_in_order(found: dict[str, Any]) -> None:
    one, two = found["1 evaluated"], found["2 evaluated"]
    assert two["objects"].tolist() == [0, 1]
    for name in ("logits", "one", "views"):
        assert two[name].shape == one[name].shape
        torch.testing.assert_close(two[name], one[name], atol=1e-5, rtol=1e-5)


def test_all_ranks_diverge_at_the_same_step(found: dict[str, Any], folder: Path) -> None:
    others = torch.load(folder / "found-1.pt", weights_only=True)
    assert found["2 diverged"] == others["2 diverged"] == found["1 diverged"]


def test_one_process_goes_on_with_what_two_began(found: dict[str, Any], folder: Path) -> None:
    saved = folder / "saved-2"
    model, result = train(DATASET, CONFIG, checkpoint=saved, identity="run")
    assert result.restored_epochs == 1
    assert_near(found["1 plain"], outcome((model, result)), 1e-5)


def test_two_processes_go_on_with_what_one_began(found: dict[str, Any]) -> None:
    assert found["2 resumed"]["restored"] == 1
    assert_near(found["1 plain"], found["2 resumed"], 1e-5)


def test_layers_are_exchanged_for_a_block_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = dict(model.named_modules())
    with synchronised(model):
        assert type(model[1]).__name__ == "SynchronisedBatchNorm"
        assert model[1].weight is before["1"].weight
        model.eval()
    assert dict(model.named_modules()) == before
    assert not model[1].training


def test_a_method_that_changes_inputs_is_refused() -> None:
    method = build_method(config_of("adversarial"))
    with pytest.raises(UserError, match="processes=2 is not allowed with method='adversarial'"):
        check_fit(method, CONFIG, DATASET.train, None, 2)


def test_more_processes_than_examples_in_a_batch_are_refused() -> None:
    method = build_method(MethodConfig())
    config = CONFIG.model_copy(update={"batch_size": 2})
    with pytest.raises(UserError, match=r"processes=2 are more than the 1 examples of a batch"):
        check_fit(method, config, DATASET.train, None, 2)
    check_fit(method, CONFIG, DATASET.train, None, 12)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
