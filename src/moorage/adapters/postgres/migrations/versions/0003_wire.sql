-- Threads -------------------------------------------------------------------------------------------------------------

-- `wire_id`: the bare uuid by which a client of the wire named the thread; NULL: the full id.
-- `per_call`: its client knows approvals call by call; others see one batch of all that wait.
-- `state_values`: the graph's state but for its messages, which have a table of their own.
ALTER TABLE threads
    ADD COLUMN wire_id          text,
    ADD COLUMN state_values     jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN error            jsonb,
    ADD COLUMN updated_at       timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN state_updated_at timestamptz,
    ADD COLUMN ttl              jsonb,  -- {"minutes", "strategy"}
    ADD COLUMN expires_at       timestamptz,
    ADD COLUMN is_temporary     boolean NOT NULL DEFAULT false,  -- a stateless run's: no list shows it
    ADD COLUMN per_call         boolean NOT NULL DEFAULT false;
ALTER TABLE threads NO FORCE ROW LEVEL SECURITY;
UPDATE threads SET updated_at = last_active, state_updated_at = last_active;
ALTER TABLE threads FORCE ROW LEVEL SECURITY;
CREATE INDEX threads_updated ON threads (owner_id, updated_at DESC, thread_id);
CREATE INDEX threads_metadata ON threads USING gin (metadata jsonb_path_ops);
CREATE INDEX threads_expiry ON threads (expires_at) WHERE expires_at IS NOT NULL;

-- Runs ----------------------------------------------------------------------------------------------------------------

-- `kwargs`: what the client asked for, as it is shown. `ephemeral`: the thread goes with the run.
ALTER TABLE runs DROP CONSTRAINT runs_kind_check;
ALTER TABLE runs ADD CONSTRAINT runs_kind_check CHECK (kind IN ('message', 'resume', 'update'));
ALTER TABLE runs
    ADD COLUMN metadata           jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN kwargs             jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN multitask_strategy text NOT NULL DEFAULT 'enqueue',
    ADD COLUMN webhook            text,
    ADD COLUMN ephemeral          boolean NOT NULL DEFAULT false,
    ADD COLUMN not_before         timestamptz,
    ADD COLUMN updated_at         timestamptz NOT NULL DEFAULT now();
CREATE INDEX runs_ephemeral ON runs (finished_at) WHERE ephemeral;
