"""The program that runs in every sandbox, sent over its stdin, and how it is started.

The modules of this folder run INSIDE, under the sandbox's own Python (3.9 or later, standard library only); none of
them is imported by the server, but for the numbers in wire.py. `zygote.py` runs first. An order's `do` is
`module.name`: the zygote imports the module at its first use, and gives the order to a worker, a process it forked.
That calls `ORDERS[name](link, order)` in the folder `order["cwd"]`; what it returns is the report. A worker carries out
one order after the other while nothing of one can reach the next (work.py). Modules import one another by their usual
names.

Whoever starts the program (`HELPER_ARGV`) sends `HELPER_SOURCE` right away.
"""

from pathlib import Path

_PACKAGES = ("moorage", "moorage.sandboxes", "moorage.sandboxes.helper")

_PROGRAM = """
import sys
from _frozen_importlib import ModuleSpec
class Sent:
    sources = {sources!r}
    def find_spec(self, name, path=None, target=None):
        if name in self.sources:
            return ModuleSpec(name, self, is_package=not self.sources[name])
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        name = module.__name__
        exec(compile(self.sources[name], name, "exec"), module.__dict__)
sys.meta_path.insert(0, Sent())
from moorage.sandboxes.helper.zygote import main
main()
"""


def _source() -> bytes:
    sources: dict[str, str] = dict.fromkeys(_PACKAGES, "")
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem != "__init__":
            sources[f"{_PACKAGES[-1]}.{path.stem}"] = path.read_text(encoding="utf-8")
    return _PROGRAM.format(sources=sources).encode()


HELPER_SOURCE = _source()

# The source comes over stdin: as an argument it would fill the agent's every `ps`.
_BOOTSTRAP = "import os;s=b''\nwhile len(s)<{0}:s+=os.read(0,{0}-len(s)) or os._exit(1)\nexec(s)".format(
    len(HELPER_SOURCE)
)
HELPER_ARGV = ("python3", "-I", "-S", "-c", _BOOTSTRAP)
