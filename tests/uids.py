"""The uids of agents in tests: each worker's own, for the kernel counts what it bounds over all processes of a uid."""

import os

_FIRST = 70_000_000  # above all that other tests take
_PER_WORKER = 100_000


def own_uids(first: int, last: int) -> range:
    """These numbers of the ones that only this process of the tests gives away; `last` is one of them."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    base = _FIRST + worker * _PER_WORKER
    return range(base + first, base + last + 1)
