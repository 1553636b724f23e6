"""Why Moorage's answers differ from those of LangGraph's server, by group and fact.

A difference without a reason is a bug, or a decision that nobody has made: the comparison shows it as such.
"""

from collections.abc import Mapping
from types import MappingProxyType

_END = "a closing `end` frame: clients need not ask whether the run goes on"
_REFUSED = "refused before anything runs: the call stays answerable"
_LOG = "every frame comes from the durable log, so every stream can be resumed"
_NOT_FOUND = "said as a status, before any stream begins"
_OTHERS = "not offered: see the list of operations"
_IGNORED = "refused by name, where it would be ignored"
_CONCISE = "the message object is the one of the legacy API; clients read both"

_REASONS: dict[str, dict[str, str]] = {
    "Pauses": {
        "status of the run that waits": "the run says that it waits, in a word that SDKs know",
        "frames that carry `__interrupt__` ... with messages-tuple only": "who streams tokens only would wait for ever",
        "the paused stream's last frame": _END,
        "a new message while a call waits ... and an answer to the old call": "what reaches nobody is an error",
    },
    "Decisions": {
        "a decision of an unknown type": _REFUSED,
        "a decision of an unknown type ... the thread is then": "there, the thread can never be used again",
        "a decision of an unknown type ... and the right decision": "as above",
        "a decision of an unknown type ... the command ran": "as above",
        "one decision for two calls": _REFUSED,
        "one decision for two calls ... the thread is then": "as above",
        "one decision for two calls ... and two decisions": "as above",
        "one decision for two calls ... tool results": "as above",
        '`resume: "yes"`': _REFUSED,
        '`resume: "yes"` ... the thread is then': "as above",
        "`edit` with arguments that do not fit": "checked against the tool's schema; " + _REFUSED,
        "`edit` with arguments that do not fit ... the thread is then": "as above",
        "an answer to an unknown interrupt id": "an answer that reaches nobody is an error, strict or not",
        "the same with `strict_resume`": "as above; there the field is ignored",
        "two answers to one interrupt at once": "exactly one counts, and the other one's author is told",
        "the same answer again, when nothing is pending": "as above",
        "the same answer again, when nothing is pending ... with `strict_resume`": "as above",
    },
    "Streams": {
        "`tools`: events": "the JavaScript client knows the mode: what becomes of each call",
        "messages-tuple: kinds of message ... LangGraph's metadata beside it": "no hosting service's names and plans",
    },
    "Reconnecting": {
        "resumable, left and joined in mid-run: the numbers arrive ... the stream's last frame": _END,
        "resumable, joined after the end with the id where it was left": _END,
        "resumable, joined after the end with `-`": _END,
        "resumable, joined after the end with no id": _LOG,
        "joined with an id that never was": "an id of no shape is refused, not taken for the start or the end",
        "not resumable: frames with an id": _LOG,
        "not resumable, joined after the end with `-`": _LOG,
        "a run's frames": _END,
        "stateless, joined in mid-run": "the `Location` that both servers send leads somewhere",
        "`GET /threads/{id}/stream`, lifecycle": "the mode is honoured: which runs start and end",
        "`GET /threads/{id}/stream`, state_update": "the mode is honoured: runs are not state updates",
        "the stream of an unknown run": _NOT_FOUND,
        "waiting for an unknown run": _NOT_FOUND,
    },
    "Cancelling": {
        "`cancel?wait=true` of a running run ... the thread is then": "`interrupted` is for what waits for an answer",
        "`cancel` of a run that is over": "cancelling twice is no error",
        "a cancelled run's stream ends with": _END,
        "`cancel` of a run that waits for approval": "cancelling is no error; what waits stays answerable",
        "`DELETE` of a run ... messages left": "the run's record goes, what was said stays",
        "`DELETE` of a running run": "cancel it first: its worker is still at it",
    },
    "The thread": {
        "a new thread's keys": "the same keys in every state of a thread",
        "a thread id of the client's ... of a wrong shape": "it could be somebody else's: no word on whether it is",
        "the thread during a run": "the values so far, not those of the last run's end",
        "an unknown checkpoint's state": "said as a status; there, an empty state",
        "an unknown assistant": "the status for what is not there",
        "an unknown field": _IGNORED,
        "stateless `wait` ... whose thread is then": "it stays for a minute, so that the run can still be joined",
    },
    "Operations": {
        "`GET /metrics`": _OTHERS,
        "`GET /.well-known/agent-card.json`": _OTHERS,
        "`GET /mcp/`": _OTHERS,
        "`POST /mcp/`": _OTHERS,
        "`POST /a2a/agent`": _OTHERS,
        "flags in `/info`": "`strict_resume` is said, tracing services are not there",
        "`GET /assistants/{id}` ... by the graph's name": "system assistants answer to their names",
        "`select` on the state": "honoured; there, ignored",
        "`POST /threads/prune` (keep_latest)": "works; the in-memory server has it not",
        "`POST /threads/prune` (keep_latest) ... states left": "as above",
        "`PUT` into an empty namespace": "the status for a wrong body",
        "`POST /runs/crons`": "also how the last run went, and why a cron was switched off",
        "`POST /runs/crons/search`": "as above",
        "option `config.configurable`": "checked against what can be configured, not ignored",
        "option `context`": "as above",
        "option `feedback_keys`": _IGNORED + "; there, the run fails",
        "option `interrupt_after: *`": "the run says that it paused",
        "option `checkpoint of another thread`": _IGNORED,
        "option `an unknown checkpoint_id`": "nothing to branch from; there, the run starts from nothing",
        "option `command.update`": "there, the run fails on a thread without a state",
    },
    "The v3 protocol": {
        "a run's methods in order of appearance": "all channels of the protocol carry events",
        "`seq` grows ... without gaps": "`seq` is the thread's, for ever, and the same for all connections",
        "keys of `content-block-delta`": "`message_id` too: deltas of parallel messages can be told apart",
        "keys of `message-finish`": "as above",
        "keys of a message in `values`": _CONCISE,
        "keys of a message in `values` ... the last one's content": _CONCISE,
        "`agent.getTree` after the run": "the tree of the last run",
        "a new connection: known event ids only ... frames left out": "of a run's past values, only the last",
        "`since`: only later frames ... later frames left out": "as above",
        "paused in a sub-agent: `input.respond` without its namespace ... `lifecycle`": "what is inside pauses first",
        "`run.start` when busy, `reject`": "honoured; there, the run waits in line",
        "`run.start` when busy, `reject` ... the runs end as": "as above",
        "`run.start` when busy, `interrupt` ... the runs end as": "as above",
        "a paused thread: what waits": "a run of v3 asks call by call, any other in one batch",
        "two gated calls: `input.requested`": "one for each call, each answered by itself",
        "two gated calls: `input.requested` ... keys of its data": "`value` too, as in the thread's state",
        "a run of the legacy API in the event stream": "one log, whatever started the run",
    },
}

REASONS: Mapping[str, Mapping[str, str]] = MappingProxyType(_REASONS)
UNEXPLAINED = "**unexplained**"


def reason(group: str, fact: str) -> str:
    """Why Moorage answers otherwise, or that nobody has said so."""
    return REASONS.get(group, {}).get(fact, UNEXPLAINED)
