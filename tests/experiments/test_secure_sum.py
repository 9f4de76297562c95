"""Only the total is seen, it is exact, and no mask is used twice."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import chi2, chisquare, ks_2samp

from circuits.errors import QrunError
from experiments.features.secure_sum import ExchangeKey, MaskedSum, Masker, masked, plain_sum, total

KEYS = [ExchangeKey.from_bytes(bytes([i]) * 32) for i in range(1, 7)]
ROSTER = [key.public for key in KEYS]


@settings(deadline=None, max_examples=30)
@given(st.data(), st.integers(1, 6))
def test_masks_cancel_whatever_the_values(data: st.DataObject, nodes: int) -> None:
    shape = data.draw(array_shapes(max_dims=3, max_side=6))
    limit = 2**62 // nodes
    values = [data.draw(arrays(np.int64, shape, elements=st.integers(-limit, limit))) for _ in range(nodes)]
    result = MaskedSum(KEYS[:nodes], b"task")("stage", values)
    np.testing.assert_array_equal(result, sum(values))
    np.testing.assert_array_equal(result, plain_sum("stage", values))
    assert result.dtype == np.int64


def test_inputs_are_left_alone_and_may_be_strided() -> None:
    values = np.arange(20, dtype=np.int64)[::2]
    assert not values.flags.c_contiguous
    MaskedSum(KEYS[:2], b"t")("s", [values, values])
    np.testing.assert_array_equal(values, np.arange(0, 20, 2))


def test_one_node_has_no_mask_and_two_have() -> None:
    values = np.arange(8)
    np.testing.assert_array_equal(masked(values, 0, KEYS[0], ROSTER[:1], b"c"), values.astype(np.uint64))
    assert not np.any(masked(values, 0, KEYS[0], ROSTER[:2], b"c") == values.astype(np.uint64))


def bytes_under_mask(values: np.ndarray, repeats: int = 8) -> np.ndarray:
    out = []
    for k in range(repeats):
        keys = [ExchangeKey.generate() for _ in range(3)]
        out.append(masked(values, 1, keys[1], [key.public for key in keys], f"stage {k}".encode()))
    return np.concatenate(out).view(np.uint8)


@pytest.mark.parametrize("values", [np.zeros(4096, np.int64), np.full(4096, -(2**62)), np.arange(4096) % 7])
def test_a_masked_contribution_has_uniform_bytes(values: np.ndarray) -> None:
    # 262,144 bytes each; the masks are the operating system's, so the level is such that one run in 1e9 fails.
    counts = np.bincount(bytes_under_mask(values), minlength=256)
    assert chisquare(counts).pvalue > 1e-9
    # The test sees what it should: the same values without masks fail it.
    assert chisquare(np.bincount(values.view(np.uint8), minlength=256)).pvalue < 1e-9


def test_two_data_sets_look_alike_under_masks() -> None:
    a, b = np.zeros(4096, np.int64), np.arange(4096) * 2**40
    x, y = bytes_under_mask(a), bytes_under_mask(b)
    counts = np.stack([np.bincount(x, minlength=256), np.bincount(y, minlength=256)])
    expected = counts.sum(0) / 2
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert chi2.sf(statistic, 255) > 1e-9
    assert ks_2samp(x.view(np.uint64) / 2**64, y.view(np.uint64) / 2**64).pvalue > 1e-9
    # Bit for bit, a masked word is unrelated to the value below it.
    agree = np.unpackbits(x ^ np.tile(b, 8).view(np.uint8)).mean()
    assert abs(agree - 0.5) < 6 * 0.5 / np.sqrt(8 * len(x))


def test_all_but_one_masked_array_tell_nothing_of_the_total() -> None:
    values = np.full(2048, 5)
    parts = [masked(values, i, KEYS[i], ROSTER[:3], b"c") for i in range(3)]
    np.testing.assert_array_equal(total(parts), 15)
    for left_out in range(3):
        rest = total([p for i, p in enumerate(parts) if i != left_out])
        assert chisquare(np.bincount(rest.view(np.uint8), minlength=256)).pvalue > 1e-9


def test_masks_differ_with_stage_task_pair_and_membership() -> None:
    zero = np.zeros(64, np.int64)
    seen = [
        masked(zero, 0, KEYS[0], ROSTER[:2], b"one"),
        masked(zero, 0, KEYS[0], ROSTER[:2], b"two"),
        masked(zero, 0, KEYS[0], [ROSTER[0], ROSTER[2]], b"one"),
        masked(zero, 0, KEYS[0], ROSTER[:3], b"one"),
        Masker(0, KEYS[0], ROSTER[:2], b"task a")("b", zero),
        Masker(0, KEYS[0], ROSTER[:2], b"task ")("ab", zero),
    ]
    for i, a in enumerate(seen):
        for b in seen[:i]:
            assert not np.any(a == b)


def test_a_context_is_never_used_for_other_values() -> None:
    masker = Masker(0, KEYS[0], ROSTER[:3], b"task")
    first = masker("counts", np.arange(4))
    np.testing.assert_array_equal(first, masker("counts", np.arange(4)))
    masker("sums", np.arange(1, 5))
    with pytest.raises(QrunError, match="other values in stage 'counts'"):
        masker("counts", np.arange(1, 5))
    with pytest.raises(QrunError, match="other values"):
        masker("counts", np.arange(4).reshape(2, 2))


def test_a_missing_or_foreign_mask_spoils_the_total() -> None:
    values = [np.arange(100)] * 3
    good = [masked(v, i, KEYS[i], ROSTER[:3], b"c") for i, v in enumerate(values)]
    wrong = masked(values[2], 2, KEYS[2], ROSTER[:3], b"other")
    assert np.abs(total([*good[:2], wrong])).max() > 2**55


def test_bad_keys_and_rosters_are_refused() -> None:
    values = np.zeros(2, np.int64)
    with pytest.raises(QrunError, match="not the one registered"):
        masked(values, 1, KEYS[0], ROSTER[:2], b"c")
    with pytest.raises(QrunError, match="not the one registered"):
        masked(values, 2, KEYS[0], ROSTER[:2], b"c")
    with pytest.raises(QrunError, match="same exchange key"):
        masked(values, 0, KEYS[0], [ROSTER[0], ROSTER[1], ROSTER[1]], b"c")
    for bad in (bytes(32), b"short", (2**255 - 19).to_bytes(32, "little")):
        with pytest.raises(QrunError, match="invalid exchange key"):
            masked(values, 0, KEYS[0], [ROSTER[0], bad], b"c")
    with pytest.raises(QrunError, match="32 bytes"):
        ExchangeKey.from_bytes(b"x" * 31)


def test_shapes_and_numbers_of_contributions_are_checked() -> None:
    with pytest.raises(QrunError, match="differ in shape"):
        plain_sum("s", [np.zeros(2, np.int64), np.zeros(3, np.int64)])
    with pytest.raises(QrunError, match="there are 3 nodes"):
        MaskedSum(KEYS[:3], b"t")("s", [np.zeros(2, np.int64)] * 2)


def test_keys_keep_and_hide_their_private_half() -> None:
    private = bytes(range(32))
    key = ExchangeKey.from_bytes(private)
    assert key.to_bytes() == private
    assert key.public == X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    assert private.hex() not in repr(key)
    assert ExchangeKey.generate().public != ExchangeKey.generate().public
    assert key.shared(KEYS[0].public) == KEYS[0].shared(key.public)
