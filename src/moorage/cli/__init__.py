"""The `moorage` command.

Exit codes: 0 done; 1 failed; 2 wrong usage or settings; 3 something must be installed first; 4 (chat) an approval
waits and nobody can be asked.
"""

from moorage.cli.app import app

__all__ = ["app"]
