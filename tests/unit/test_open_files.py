"""A process that serves many is not kept to the few open files that shells allow."""

import subprocess
import sys

_PROGRAM = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 1500))
from moorage.cli.open_files import allow_many_open_files
allow_many_open_files()
kept = [open("/dev/null") for _ in range(1000)]
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_as_many_files_can_be_open_as_the_operator_allows_at_most() -> None:
    found = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert found.stdout == "(1500, 1500)\n"
