import torch
from torch import nn

from kdplatform.data import Dataset
from kdplatform.training import initialised_model, predict_logits

CPU = torch.device("cpu")


def test_logits_are_those_of_the_model_in_eval_mode(dataset: Dataset) -> None:
    model = initialised_model("resnet20", dataset, seed=0, role="teacher")
    model.train()
    logits = predict_logits(model, dataset.test.inputs, device=CPU, batch_size=7)
    assert model.training
    assert logits.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(logits, model.eval()(dataset.test.inputs))


def test_predicting_changes_nothing_in_the_model(dataset: Dataset) -> None:
    model = initialised_model("resnet20", dataset, seed=0, role="teacher")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    predict_logits(model, dataset.test.inputs, device=CPU)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_bf16_gives_float32_logits_near_those_of_fp32(dataset: Dataset) -> None:
    model = initialised_model("lenet5", dataset, seed=0, role="student")
    exact = predict_logits(model, dataset.test.inputs, device=CPU)
    rounded = predict_logits(model, dataset.test.inputs, device=CPU, precision="bf16")
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.02)


def test_inputs_need_not_be_images() -> None:
    model = nn.Linear(3, 2)
    features = torch.rand(5, 3)
    torch.testing.assert_close(
        predict_logits(model, features, device=CPU), model(features).detach()
    )
