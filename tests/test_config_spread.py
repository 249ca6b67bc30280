"""One override cuts an instance anew: `ep: all`, and dies that are split by tp alone."""

import pytest

from simpod.config import load_experiment, resolve_document
from simpod.errors import ConfigError
from simpod.sweep.search.choices import num_npus

COLOCATED, SPLIT = "cloudmatrix-infer-decode", "xdeepserve-disaggregated-768"


def load(name, *keys):
    return load_experiment(name, [f"deployment.decode.{key}" for key in keys])


def cut(name, *keys):
    """Dies, dp, tp, ep."""
    layout = load(name, *keys).pools[0].layout
    return layout.dies, layout.dp, layout.tp, layout.ep


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ((), (320, 320, 1, 320)),
        (("dies=288",), (288, 288, 1, 288)),
        (("dies=144", "dp=144", "ep=144"), (144, 144, 1, 144)),
        (("ep=64", "dp=64", "dies=128"), (128, 64, 2, 64)),
        (("tp=2",), (320, 160, 2, 320)),
        (("dp=160",), (320, 160, 2, 320)),
        (("data_parallel_size=160", "expert_parallel_size=all"), (320, 160, 2, 320)),
        (("tp=4", "dp=80"), (320, 80, 4, 320)),
        (("dp=null", "ep=64"), (320, 320, 1, 64)),
    ],
)
def test_an_override_of_one_size_moves_the_others(keys, expected):
    assert cut(COLOCATED, *keys) == expected


def test_all_is_a_number_in_the_document():
    got = load(COLOCATED, "dies=288")
    assert got.document["deployment"]["decode"]["ep"] == 288
    assert got.origins["deployment.decode.ep"] == "derived: all dies"
    assert resolve_document(got.document).pools == got.pools


def test_all_of_a_split_instance_are_its_expert_dies():
    assert cut(SPLIT, "dies=528", "expert_dies=240") == (528, 528, 1, 240)
    assert load(SPLIT, "ep=288").pools == load(SPLIT).pools
    assert cut(SPLIT, "expert_dies=0", "domains=1") == (480, 480, 1, 480)


def test_npus_of_a_split_instance_are_those_of_both_halves():
    assert num_npus(load(SPLIT)) == 384


def test_two_sizes_that_are_both_set_must_agree():
    with pytest.raises(ConfigError, match="dp 160 x tp 1 = 160 does not match dies 320"):
        cut(COLOCATED, "dp=160", "tp=1")
