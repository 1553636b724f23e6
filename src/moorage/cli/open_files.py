"""How many files and connections a process that serves many may have open."""

import resource


def allow_many_open_files() -> None:
    """As many as the operator allows at most. The usual 1024 are for programs that use select(2); ours do not."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
