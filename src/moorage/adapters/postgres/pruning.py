"""Taking checkpoints away: those that the latest ones no longer need, or those that came after a given one.

A channel that stores only its changes (LangGraph's DeltaChannel: messages, files) is read from the nearest ancestor
that holds its whole value, and from the writes of all checkpoints between. So of a superseded checkpoint two things can
still be needed: its place in the chain, and its writes to such channels.
"""

from typing import LiteralString
from uuid import UUID, uuid5

from psycopg import AsyncConnection
from psycopg.rows import DictRow

_INPUT = "__input__"  # what LangGraph makes the task id of an input's writes from
_COMMAND_TASK = str(UUID(int=0))  # under which it stores those of a command

# Keeps, per namespace, the latest checkpoint with all that it refers to, and what its changes-only channels are read
# from; of the calls of sub-graphs only those that the latest root checkpoint made. One statement, one snapshot: what is
# saved meanwhile is neither seen nor deleted. What is kept for the chain's sake is marked, and no more a state to read.
PRUNE = """
WITH RECURSIVE heads AS MATERIALIZED (
    SELECT DISTINCT ON (checkpoint_ns) checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint,
        metadata -> 'parents' ->> '' AS root_id
    FROM checkpoints WHERE thread_id = %(thread_id)s
    ORDER BY checkpoint_ns, checkpoint_id DESC
), ended AS MATERIALIZED (
    SELECT heads.checkpoint_ns FROM heads JOIN checkpoints AS root
        ON root.thread_id = %(thread_id)s AND root.checkpoint_ns = '' AND root.checkpoint_id = heads.root_id
    WHERE strpos(heads.checkpoint_ns, ':') > 0
        AND heads.root_id <> (SELECT checkpoint_id FROM heads WHERE checkpoint_ns = '')
), latest AS MATERIALIZED (
    SELECT * FROM heads WHERE checkpoint_ns NOT IN (SELECT checkpoint_ns FROM ended)
), deltas AS MATERIALIZED (
    SELECT checkpoint_ns, jsonb_object_keys(metadata -> 'counters_since_delta_snapshot') AS channel
    FROM checkpoints WHERE thread_id = %(thread_id)s
    UNION
    SELECT checkpoint_ns, value.key FROM checkpoints, jsonb_each(checkpoint -> 'channel_values') AS value
    WHERE thread_id = %(thread_id)s AND value.value = 'true'
), chain AS (
    SELECT deltas.channel, latest.checkpoint_ns, latest.checkpoint_id, latest.parent_checkpoint_id, latest.checkpoint,
        false AS is_ancestor
    FROM latest JOIN deltas USING (checkpoint_ns) WHERE latest.checkpoint -> 'channel_versions' ? deltas.channel
    UNION ALL
    SELECT chain.channel, parent.checkpoint_ns, parent.checkpoint_id, parent.parent_checkpoint_id, parent.checkpoint,
        true
    FROM chain CROSS JOIN LATERAL (
        SELECT * FROM checkpoints WHERE thread_id = %(thread_id)s AND checkpoint_ns = chain.checkpoint_ns
            AND checkpoint_id = chain.parent_checkpoint_id LIMIT 1
    ) AS parent
    WHERE chain.checkpoint -> 'channel_values' ->> chain.channel IS NULL AND NOT EXISTS (
        SELECT FROM checkpoint_blobs AS stored WHERE stored.thread_id = %(thread_id)s
            AND stored.checkpoint_ns = chain.checkpoint_ns AND stored.channel = chain.channel
            AND stored.version = chain.checkpoint -> 'channel_versions' ->> chain.channel AND stored.type <> 'empty'
    )
), kept AS MATERIALIZED (
    SELECT checkpoint_ns, checkpoint_id FROM latest UNION SELECT checkpoint_ns, checkpoint_id FROM chain
), kept_blobs AS MATERIALIZED (
    SELECT checkpoint_ns, version.key AS channel, version.value AS version
    FROM latest, jsonb_each_text(checkpoint -> 'channel_versions') AS version
    UNION
    SELECT checkpoint_ns, channel, checkpoint -> 'channel_versions' ->> channel FROM chain
), dropped_writes AS (
    DELETE FROM checkpoint_writes WHERE thread_id = %(thread_id)s
        AND (
            checkpoint_ns IN (SELECT checkpoint_ns FROM ended)
            OR (checkpoint_ns, checkpoint_id)
                IN (SELECT checkpoint_ns, checkpoint_id FROM checkpoints WHERE thread_id = %(thread_id)s)
        )
        AND (checkpoint_ns, checkpoint_id) NOT IN (SELECT checkpoint_ns, checkpoint_id FROM latest)
        AND (checkpoint_ns, checkpoint_id, channel) NOT IN (SELECT checkpoint_ns, checkpoint_id, channel FROM chain)
), dropped_blobs AS (
    DELETE FROM checkpoint_blobs WHERE thread_id = %(thread_id)s AND (checkpoint_ns, channel, version)
        NOT IN (SELECT checkpoint_ns, channel, version FROM kept_blobs WHERE version IS NOT NULL)
), dropped_checkpoints AS (
    DELETE FROM checkpoints WHERE thread_id = %(thread_id)s
        AND (checkpoint_ns, checkpoint_id) NOT IN (SELECT checkpoint_ns, checkpoint_id FROM kept)
)
UPDATE checkpoints SET
    metadata = CASE WHEN (checkpoint_ns, checkpoint_id) IN (SELECT checkpoint_ns, checkpoint_id FROM latest)
        THEN metadata ELSE metadata || '{"superseded": true}' END,
    parent_checkpoint_id = CASE WHEN (checkpoint_ns, parent_checkpoint_id)
        IN (SELECT checkpoint_ns, checkpoint_id FROM kept) THEN parent_checkpoint_id END
WHERE thread_id = %(thread_id)s AND (checkpoint_ns, checkpoint_id) IN (SELECT checkpoint_ns, checkpoint_id FROM kept)
"""

DELETE_ALL: tuple[LiteralString, ...] = (
    "DELETE FROM checkpoints WHERE thread_id = %(thread_id)s",
    "DELETE FROM checkpoint_blobs WHERE thread_id = %(thread_id)s",
    "DELETE FROM checkpoint_writes WHERE thread_id = %(thread_id)s",
)

# A blob belongs to the first checkpoint that has its version, so none from before the base refers to a later one's.
_DELETE_AFTER = (
    """
    WITH gone AS (
        DELETE FROM checkpoints WHERE thread_id = %(thread_id)s AND checkpoint_id > %(base)s
        RETURNING checkpoint_ns, checkpoint -> 'channel_versions' AS versions
    ), freed AS (
        SELECT checkpoint_ns, version.key AS channel, version.value AS version
        FROM gone, jsonb_each_text(versions) AS version
        EXCEPT
        SELECT checkpoint_ns, version.key, version.value
        FROM checkpoints, jsonb_each_text(checkpoint -> 'channel_versions') AS version
        WHERE thread_id = %(thread_id)s AND checkpoint_id <= %(base)s
    )
    DELETE FROM checkpoint_blobs AS blob USING freed WHERE blob.thread_id = %(thread_id)s
        AND blob.checkpoint_ns = freed.checkpoint_ns AND blob.channel = freed.channel AND blob.version = freed.version
    """,
    """
    DELETE FROM checkpoint_writes WHERE thread_id = %(thread_id)s AND (
        checkpoint_id > %(base)s OR (checkpoint_ns = '' AND checkpoint_id = %(base)s AND task_id = ANY(%(input_tasks)s))
    )
    """,
)


async def delete_checkpoints_after(
    connection: AsyncConnection[DictRow], thread_id: str, base_checkpoint_id: str | None
) -> None:
    """Make this root checkpoint the thread's latest again; with None, leave the thread without any.

    Goes with the caller's transaction, as the system role. All namespaces' later checkpoints go, with their writes and
    values, and the input that was stored on the base itself. Ids are ordered in time. Does not look at claims: the
    thread must have no active run.
    """
    if base_checkpoint_id is None:
        for statement in DELETE_ALL:
            await connection.execute(statement, {"thread_id": thread_id})
        return
    values = {"thread_id": thread_id, "base": base_checkpoint_id, "input_tasks": _input_tasks(base_checkpoint_id)}
    for statement in _DELETE_AFTER:
        await connection.execute(statement, values)


def _input_tasks(checkpoint_id: str) -> list[str]:
    """The task ids under which LangGraph stores what comes in after this checkpoint, on the checkpoint itself."""
    try:
        return [_COMMAND_TASK, str(uuid5(UUID(checkpoint_id), _INPUT))]
    except ValueError:
        return [_COMMAND_TASK]
