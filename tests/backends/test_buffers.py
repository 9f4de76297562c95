import torch

from backends.twin.buffers import BufferPool


def test_a_buffer_comes_back_when_its_lease_is_gone() -> None:
    pool, like = BufferPool(), torch.zeros(1)
    first = pool.lease((3, 4), like)
    address = first.buffer.data_ptr()
    second = pool.lease((3, 4), like)
    assert second.buffer.data_ptr() != address
    del first
    assert pool.lease((2, 3), like).buffer.data_ptr() == address  # One that is larger than asked for will do.
    assert pool.lease((5, 3), like).buffer.shape == (5, 3)
    del second
    first = pool.lease((3, 4), like)
    address = first.buffer.data_ptr()
    del first
    assert pool.lease((3, 4), like.double()).buffer.dtype == torch.float64
    assert pool.lease((3, 4), like).buffer.data_ptr() == address


def test_idle_buffers_are_no_more_than_were_lent_at_once() -> None:
    """Else each size that was ever asked for would stay."""
    pool, like = BufferPool(), torch.zeros(1)
    for size in range(1, 50):
        lease = pool.lease((size,), like)
        del lease
    assert [buffer.numel() for buffer in pool._idle] == [49]
    leases = [pool.lease((2,), like) for _ in range(3)]
    del leases
    assert len(pool._idle) == 3
    pool.clear()
    assert not pool._idle


def test_not_endlessly_many_are_kept() -> None:
    pool, like = BufferPool(), torch.zeros(1)
    leases = [pool.lease((2,), like) for _ in range(100)]
    del leases
    assert len(pool._idle) == 64
