"""Names of devices and models in measured data."""

import pytest

from simpod.config import names
from simpod.errors import ConfigError
from simpod.validate.names import DEVICES, SAME_ARCHITECTURE, hardware_of, model_of


@pytest.mark.parametrize(
    ("device", "profile"),
    [
        ("h100_sxm", "h100"),
        ("H100-SXM5", "h100"),
        ("a100_pcie", "a100"),
        ("b200_sxm", "b200"),
        ("RTXPRO6000", "rtx-pro-6000"),
        ("rtx_pro_6000_server", "rtx-pro-6000"),
        ("h800", "h800"),
        ("ATLAS_800_A3_752T_128G_DIE", "cloudmatrix384"),
        ("ATLAS_800_A2_280T_64G", "atlas-a2-280t"),
        ("ascend_910b", "atlas-a2-376t"),
    ],
)
def test_device_means_a_profile(device: str, profile: str) -> None:
    assert hardware_of(device).name == profile


def test_more_dies_than_a_node_mean_the_pod() -> None:
    assert hardware_of("h100_sxm", 8).name == "h100"
    assert hardware_of("h100_sxm", 9).name == "h100-pod"
    with pytest.raises(ConfigError, match="no hardware profile for 100000 dies of 'h100_sxm'"):
        hardware_of("h100_sxm", 100_000)


def test_a_device_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="'tpu_v5'"):
        hardware_of("tpu_v5")


@pytest.mark.parametrize(
    ("repository", "model"),
    [
        ("deepseek-ai/DeepSeek-R1", "deepseek-r1"),
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek-r1"),
        ("nvidia/DeepSeek-R1-0528-NVFP4-v2", "deepseek-r1"),
        ("meta-llama/Meta-Llama-3.1-70B-Instruct", "llama-3.1-70b"),
        ("nvidia/Llama-3.3-70B-Instruct-FP8", "llama-3.1-70b"),  # the same architecture
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3-30b-a3b"),
        ("openai/gpt-oss-120b", "gpt-oss-120b"),
        ("MiniMaxAI/MiniMax-M2.5", "minimax-m2.5"),
    ],
)
def test_repository_means_a_model(repository: str, model: str) -> None:
    assert model_of(repository).name == model


def test_a_model_that_is_not_shipped_is_refused() -> None:
    with pytest.raises(ConfigError, match="'org/Unknown-7B-Instruct' is not among"):
        model_of("org/Unknown-7B-Instruct")


def test_tables_of_names_lead_to_what_is_shipped() -> None:
    assert set(SAME_ARCHITECTURE.values()) <= set(names("models"))
    assert not set(SAME_ARCHITECTURE) & set(names("models"))
    assert set(DEVICES.values()) <= set(names("hardware_profiles"))
