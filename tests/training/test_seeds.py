import torch

from kdplatform.training.seeds import Purpose, derived_seed, global_generators_seeded


def test_student_and_distilled_share_every_stream() -> None:
    for purpose in Purpose:
        assert derived_seed(3, "student", purpose) == derived_seed(3, "distilled", purpose)


def test_no_other_two_streams_are_equal() -> None:
    streams = [
        derived_seed(seed, role, purpose)
        for seed in range(50)
        for role in ("teacher", "student")
        for purpose in Purpose
    ]
    assert len(set(streams)) == len(streams)


def test_streams_are_those_of_earlier_versions() -> None:
    # A changed value would silently change every result: then the runs' keys must change too.
    assert derived_seed(0, "teacher", Purpose.INITIALISATION) == 2635072618980576772


def test_global_generator_is_seeded_inside_and_untouched_outside() -> None:
    before = torch.get_rng_state()
    draws = []
    for _ in range(2):
        with global_generators_seeded(1, "student", Purpose.MODEL_NOISE):
            draws.append(torch.rand(4))
    assert torch.equal(*draws)
    assert torch.equal(torch.get_rng_state(), before)
