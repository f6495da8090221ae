"""Which traces are sampled, compared with the samplers of OpenTelemetry's SDK."""

from random import Random

import pytest
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from common.telemetry.sampling import Sampling

SAMPLED, UNSAMPLED = (f"00-{'a' * 32}-{'b' * 16}-{flags}" for flags in ("01", "00"))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_ids_are_sampled_as_by_the_sdk(share: float) -> None:
    sampling, sdk = Sampling("traceidratio", share), TraceIdRatioBased(share)
    ids = [Random(seed).getrandbits(128) for seed in range(500)]

    ours = [sampling.of_child(f"00-{trace:032x}-{'b' * 16}-00") for trace in ids]

    assert ours == [sdk.should_sample(None, trace, "").decision.is_sampled() for trace in ids]


@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_the_id_of_a_new_trace_is_one_that_is_sampled(share: float) -> None:
    sampling = Sampling("traceidratio", share)

    assert all(sampling.of_child(f"00-{sampling.new_id():032x}-{'b' * 16}-01") for _ in range(500))


@pytest.mark.parametrize(
    ("sampler", "share", "is_sampled"),
    [
        ("parentbased_always_on", None, True),
        ("parentbased_always_off", None, False),
        ("parentbased_traceidratio", None, True),
        ("parentbased_traceidratio", 0.0, False),
        ("always_on", 0.0, True),
        ("always_off", 1.0, False),
    ],
)
def test_new_traces_are_sampled_as_the_sampler_says(
    sampler: str, share: float | None, is_sampled: bool
) -> None:
    assert Sampling(sampler, share).of_new() is is_sampled


@pytest.mark.parametrize("root", ["always_on", "always_off"])
def test_with_a_parent_the_parent_counts(root: str) -> None:
    sampling = Sampling(f"parentbased_{root}")

    assert [sampling.of_child(SAMPLED), sampling.of_child(UNSAMPLED)] == [True, False]


@pytest.mark.parametrize("sampler", ["traceidratio", "parentbased_traceidratio"])
def test_of_a_client_neither_the_flag_nor_the_id_counts(sampler: str) -> None:
    chosen = f"00-{'1' * 16}{'0' * 16}-{'b' * 16}-01"

    assert not Sampling(sampler, 1e-6).of_child(chosen, trusts_parent=False)


def test_a_batch_is_sampled_with_any_of_its_traces() -> None:
    sampling = Sampling("parentbased_always_off")

    assert sampling.of_batch([UNSAMPLED, SAMPLED])
    assert not sampling.of_batch([UNSAMPLED, UNSAMPLED])
