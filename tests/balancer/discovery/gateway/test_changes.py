"""Changes of every kind under load, one after the other: not one request may fail. `benchmarks.changes` makes 1,000."""

from __future__ import annotations

from benchmarks import changes


async def test_changes_of_every_kind_fail_no_request() -> None:
    load, made, _ = await changes.run(21, 0.03)
    assert not load.failed
    assert set(made.made.values()) == {3}
    assert len(load.done) == 7
    assert min(load.done.values()) > 3
