"""What a helper's process does to itself, in processes of their own."""

import ctypes
import subprocess
import sys

import pytest

_LANDLOCK_THAT_WILL_DO = 2

_RESTRICTED_WHEN_SHORT_OF_DESCRIPTORS = """
import errno, os, resource
from moorage.sandboxes.helper import processes

def restrict():
    try:
        processes.see_nothing_outside()
    except OSError as error:
        return errno.errorcode[error.errno]

def can_look_outside():
    try:
        os.readlink(f"/proc/{os.getppid()}/exe")
    except PermissionError:
        return False
    return True

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
print(restrict(), can_look_outside())
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(restrict(), can_look_outside())
print(restrict(), can_look_outside())
"""


def test_a_process_that_had_no_descriptor_left_to_restrict_itself_says_so_and_can_do_it_later() -> None:
    if ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) < _LANDLOCK_THAT_WILL_DO:
        pytest.skip("this kernel cannot keep processes of one uid apart")
    done = subprocess.run(
        [sys.executable, "-c", _RESTRICTED_WHEN_SHORT_OF_DESCRIPTORS], capture_output=True, text=True, check=True
    )
    assert done.stdout == "EMFILE True\nNone False\nNone False\n"
