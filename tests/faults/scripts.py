"""Messages that tell the scripted model what to do."""

import json
import secrets
from dataclasses import dataclass, field
from typing import Any

EFFECTS = "effects.log"

type Step = tuple[str, dict[str, Any]] | list[tuple[str, dict[str, Any]]]


def new_mark() -> str:
    return f"m-{secrets.token_hex(6)}"


def long_sleep() -> str:
    """A command that outlasts any test, and that no other on this machine is like."""
    return f"sleep 7654.{secrets.randbelow(10**9):09d}"


@dataclass(frozen=True)
class Script:
    """A message: the model makes `steps` turn by turn (a list: in parallel), then says `then`.

    `pause` seconds pass before each word of it; `hold` makes it wait for a release before every answer.
    """

    steps: tuple[Step, ...] = ()
    then: str = "Done."
    pause: float = 0
    hold: bool = False
    mark: str = field(default_factory=new_mark)

    def __str__(self) -> str:
        calls = [_call(step) for step in self.steps]
        content = {"calls": calls, "then": self.then, "mark": self.mark}
        if self.pause:
            content["pause"] = self.pause
        if self.hold:
            content["hold"] = True
        return json.dumps(content)


def script(*steps: Step, then: str = "Done.", pause: float = 0, hold: bool = False) -> Script:
    return Script(steps, then, pause, hold)


def run(command: str) -> tuple[str, dict[str, Any]]:
    return "execute", {"command": command}


def effect(name: str, *, then: str = "true") -> tuple[str, dict[str, Any]]:
    """A command that leaves one line with this name, and goes on with `then`."""
    return run(f"echo {name} >> {EFFECTS} && {then}")


def list_files() -> tuple[str, dict[str, Any]]:
    return "ls", {"path": "/workspace"}


def words(count: int) -> str:
    """Text in which a gap or a copy shows."""
    return " ".join(str(number) for number in range(1, count + 1))


def _call(step: Step) -> Any:
    return [_call(one) for one in step] if isinstance(step, list) else {"name": step[0], "args": step[1]}
