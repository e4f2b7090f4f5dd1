from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.dataset_files import write_image
from PIL import Image

from kdplatform.data import StreamedInputs
from kdplatform.data._streams import RandomCrops, StreamLoader
from kdplatform.errors import MachineError, UserError

COUNT = 9
STEPS = list(torch.tensor([8, 1, 0, 3, 2, 7, 4]).split(3))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(COUNT):
        write_image(folder / f"{number}.png", number, 20 + number, 16)
    return folder


def streamed(root: Path, count: int = COUNT, **fields: Any) -> StreamedInputs:
    fields = {"size": 8, "workers": 0} | fields
    return StreamedInputs(root, [f"{number}.png" for number in range(count)], **fields)


def test_it_looks_like_a_tensor_of_images(root: Path) -> None:
    inputs = streamed(root)
    assert len(inputs) == COUNT
    assert inputs.shape == (COUNT, 3, 8, 8)
    assert inputs.ndim == 4
    assert inputs[:2].dtype == inputs.dtype == torch.uint8
    assert inputs[:2].shape == (2, 3, 8, 8)
    assert inputs[9:].shape == (0, 3, 8, 8)
    assert torch.equal(inputs[torch.tensor([5, 3])], torch.stack([inputs[5], inputs[3]]))
    assert torch.equal(inputs[torch.tensor(5)], inputs[5])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_rows_asked_for_whatever_the_number_of_workers(
    root: Path, workers: int
) -> None:
    inputs = streamed(root, workers=workers)
    batches = list(inputs.batches(STEPS))
    assert len(batches) == len(STEPS)
    for rows, images in zip(STEPS, batches, strict=True):
        assert torch.equal(images, inputs[rows])


def test_random_crops_follow_epoch_and_row_alone(root: Path) -> None:
    crops = RandomCrops(seed=7, smallest=0.1)
    one, two = (StreamLoader(streamed(root, workers=n), pinned=False) for n in (0, 2))
    first = list(one.epoch(STEPS, crops))
    for alone, together in zip(first, two.epoch(STEPS, crops), strict=True):
        assert torch.equal(alone, together)
    # In another order, after another epoch, every row is cropped as before.
    again = torch.cat(list(two.epoch(STEPS[::-1], crops)))
    assert torch.equal(again[-3:], first[0])
    other = next(one.epoch(STEPS, RandomCrops(seed=8, smallest=0.1)))
    assert not torch.equal(other, first[0])


def test_an_epoch_that_was_left_early_does_not_disturb_the_next(root: Path) -> None:
    loader = StreamLoader(streamed(root, workers=2), pinned=False)
    next(loader.epoch(STEPS))
    for rows, images in zip(STEPS, loader.epoch(STEPS), strict=True):
        assert torch.equal(images, streamed(root)[rows])


def test_worker_processes_draw_nothing_from_the_models_generator(root: Path) -> None:
    before = torch.get_rng_state()
    list(streamed(root, workers=1).batches(STEPS))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_no_longer_decodes_is_named_in_one_line(
    root: Path, tmp_path: Path, workers: int
) -> None:
    for number in range(COUNT):
        (tmp_path / f"{number}.png").write_bytes((root / f"{number}.png").read_bytes())
    (tmp_path / "3.png").write_bytes((root / "3.png").read_bytes()[:60])
    with pytest.raises(UserError, match=r"^image '.*/3\.png' cannot be decoded \([^\n]*\)$"):
        list(streamed(tmp_path, workers=workers).batches(STEPS))


def test_a_dead_worker_is_the_machines_fault(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*arguments: object) -> None:
        import os

        os._exit(3)

    monkeypatch.setattr(StreamedInputs, "decode", die)
    with pytest.raises(MachineError, match=r"decodes images died .*dataset\.workers=0"):
        list(streamed(root, workers=1).batches(STEPS))


def test_the_shorter_side_is_resized_and_the_centre_cut_out(tmp_path: Path) -> None:
    # Columns 0-9 red, 10-19 green, 20-29 blue: the square in the middle of 30 x 10 is green.
    image = np.zeros((10, 30, 3), dtype=np.uint8)
    for third in range(3):
        image[:, 10 * third : 10 * third + 10, third] = 255
    Image.fromarray(image).save(tmp_path / "0.png")
    middle = streamed(tmp_path, 1, size=10)[0]
    assert torch.equal(middle, torch.from_numpy(image[:, 10:20].copy()).permute(2, 0, 1))
    # Resized to a height of 20, its middle 10 x 10 are the original's middle 5 x 5.
    assert streamed(tmp_path, 1, size=10, resize=20)[0].flatten(1).float().mean(1)[1] == 255


def test_an_image_of_the_size_asked_for_is_left_as_it_is(root: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    assert torch.equal(streamed(tmp_path, 1)[0], torch.from_numpy(pixels).permute(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", (16, 16), "white").convert(mode).save(tmp_path / f"0.{suffix}")
    inputs = StreamedInputs(tmp_path, [f"0.{suffix}"], size=8, workers=0)
    assert inputs[0].shape == (3, 8, 8)
    assert inputs[0].float().mean() > 250


@pytest.mark.parametrize("kind", ["png", "tif", "ppm", "big-endian tif"])
def test_grey_values_of_16_bits_keep_their_order(tmp_path: Path, kind: str) -> None:
    ramp = np.broadcast_to(np.linspace(0, 65535, 64), (64, 64)).astype(np.uint16)
    path = tmp_path / f"0.{kind[-3:]}"
    image = Image.fromarray(ramp)
    if kind.startswith("big"):
        image = Image.frombytes("I;16B", (64, 64), ramp.astype(">u2").tobytes())
    image.save(path)
    inputs = StreamedInputs(tmp_path, [path.name], size=64, workers=0)
    expected = torch.from_numpy((ramp // 256).astype(np.uint8)).expand(3, 64, 64)
    assert torch.equal(inputs[0], expected)


def test_grey_values_of_16_bits_are_turned_upright_too(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.linspace(0, 65535, 64), (32, 64)).astype(np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(ramp).save(tmp_path / "0.png", exif=exif)
    row = streamed(tmp_path, 1)[0][0, 0]
    assert (row[:-1] > row[1:]).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_an_image_whose_values_have_no_known_range_is_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (16, 16), 1).save(tmp_path / "0.tif")
    inputs = StreamedInputs(tmp_path, ["0.tif"], size=8, workers=0)
    with pytest.raises(UserError, match=rf"0\.tif' cannot be decoded \(mode '{mode}': [^\n]*\)$"):
        list(inputs.batches([torch.tensor([0])]))


@pytest.mark.parametrize("mode", ["P", "LA", "1"])
def test_colors_are_those_of_the_file_whatever_its_mode(tmp_path: Path, mode: str) -> None:
    # The left half is black, the right half white; what of it is transparent does not matter.
    image = Image.new("L", (16, 16))
    image.paste(255, (8, 0, 16, 16))
    image.convert(mode).save(tmp_path / "0.png", **({"transparency": 0} if mode == "P" else {}))
    half = torch.tensor([0] * 8 + [255] * 8, dtype=torch.uint8)
    assert torch.equal(streamed(tmp_path, 1, size=16)[0], half.expand(3, 16, 16))


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    gradient = np.linspace(0, 255, 640, dtype=np.uint8).reshape(1, 640, 1)
    image = Image.fromarray(np.ascontiguousarray(np.broadcast_to(gradient, (320, 640, 3))))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "0.jpg", exif=exif)
    turned = StreamedInputs(tmp_path, ["0.jpg"], size=8, workers=0)[0].float().mean(dim=0)
    # Bright edge on the right as stored: on the left upside down, below or above when turned.
    bright = {3: turned[:, 0], 6: turned[-1, :], 8: turned[0, :]}[orientation]
    dark = {3: turned[:, -1], 6: turned[0, :], 8: turned[-1, :]}[orientation]
    assert bright.mean() > dark.mean() + 50


def test_a_random_crop_shows_no_less_than_its_smallest_share(tmp_path: Path) -> None:
    # Each pixel says where it is: the crop's extent can be read off the image.
    across, down = np.meshgrid(np.arange(200), np.arange(100))
    image = np.stack([across, 2 * down, 0 * down], axis=2).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "0.png")
    shares = []
    for seed in range(200):
        crop = streamed(tmp_path, 1, size=32).decode(0, RandomCrops(seed, 0.25)).float()
        wide, high = (crop[c].amax() - crop[c].amin() for c in (0, 1))
        shares.append(float(wide / 200 * high / 200))
    # An upright crop of the wide image is at most 4/3 as wide as it is high: 2/3 of the area.
    assert 0.2 < min(shares) < 0.35
    assert max(shares) > 0.55
