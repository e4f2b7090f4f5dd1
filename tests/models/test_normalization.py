import torch
from torch import nn

from kdplatform.models.normalization import InputNormalization

MEAN = torch.tensor([0.5, 0.25, 0.1])
STD = torch.tensor([0.2, 0.1, 1.0])


def expected(images: torch.Tensor) -> torch.Tensor:
    return (images - MEAN[:, None, None]) / STD[:, None, None]


def test_bytes_count_as_fractions_of_255() -> None:
    images = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8)
    normalised = InputNormalization(nn.Identity(), MEAN, STD)(images)
    torch.testing.assert_close(normalised, expected(images / 255), rtol=1e-5, atol=1e-5)


def test_floats_are_taken_as_they_are() -> None:
    images = torch.rand(4, 3, 5, 6)
    normalised = InputNormalization(nn.Identity(), MEAN, STD)(images)
    torch.testing.assert_close(normalised, expected(images), rtol=1e-5, atol=1e-5)


def test_features_without_pixels_are_normalised_per_column() -> None:
    features = torch.rand(4, 3)
    normalised = InputNormalization(nn.Identity(), MEAN, STD)(features)
    torch.testing.assert_close(normalised, (features - MEAN) / STD, rtol=1e-5, atol=1e-5)


def test_constants_are_saved_with_the_weights_and_not_trained() -> None:
    module = InputNormalization(nn.Linear(3, 2), MEAN, STD)
    assert {"mean", "std"} <= module.state_dict().keys()
    assert {name for name, _ in module.named_parameters()} == {"model.weight", "model.bias"}


def test_channels_last_images_stay_channels_last() -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8).to(memory_format=torch.channels_last)
    normalised = InputNormalization(nn.Identity(), MEAN, STD)(images)
    assert normalised.is_contiguous(memory_format=torch.channels_last)


def test_images_are_resized_to_what_the_model_was_trained_on() -> None:
    images = torch.full((2, 3, 8, 8), 255, dtype=torch.uint8)
    normalised = InputNormalization(nn.Identity(), MEAN, STD, image_size=20)(images)
    torch.testing.assert_close(normalised, expected(torch.ones(2, 3, 20, 20)))


def test_images_of_the_right_size_stay_as_they_are() -> None:
    images = torch.rand(2, 3, 8, 8)
    resizing, plain = (InputNormalization(nn.Identity(), MEAN, STD, size) for size in (8, None))
    assert torch.equal(resizing(images), plain(images))


def test_grey_images_become_as_many_channels_as_the_model_knows() -> None:
    grey = torch.rand(2, 1, 5, 5)
    normalised = InputNormalization(nn.Identity(), MEAN, STD)(grey)
    torch.testing.assert_close(normalised, expected(grey.expand(2, 3, 5, 5)))
