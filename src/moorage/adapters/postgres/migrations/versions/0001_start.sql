-- Users and what proves who they are ------------------------------------------------------------------------------

CREATE TABLE users (
    user_id       text PRIMARY KEY CHECK (user_id ~ '^[a-z0-9][a-z0-9._-]{0,30}[a-z0-9]$'),
    password_hash text NOT NULL,
    email         text,
    is_admin      boolean NOT NULL DEFAULT false,
    is_active     boolean NOT NULL DEFAULT true,
    token_version integer NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);

-- A family is all tokens that descend from one log-in: using a token twice revokes its family.
CREATE TABLE refresh_tokens (
    token_hash    bytea PRIMARY KEY,
    user_id       text NOT NULL REFERENCES users ON DELETE CASCADE,
    family        uuid NOT NULL,
    token_version integer NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    used_at       timestamptz,
    revoked_at    timestamptz
);
CREATE INDEX refresh_tokens_user ON refresh_tokens (user_id);
CREATE INDEX refresh_tokens_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);

CREATE TABLE revoked_access_tokens (
    jti        text PRIMARY KEY,
    user_id    text NOT NULL REFERENCES users ON DELETE CASCADE,
    expires_at timestamptz NOT NULL
);
CREATE INDEX revoked_access_tokens_user ON revoked_access_tokens (user_id);
CREATE INDEX revoked_access_tokens_expiry ON revoked_access_tokens (expires_at);

-- Accounts that do not exist are counted too, so `account` refers to no user.
CREATE TABLE login_failures (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account   text NOT NULL,
    address   text NOT NULL,
    failed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX login_failures_account ON login_failures (account, failed_at);
CREATE INDEX login_failures_address ON login_failures (address, failed_at);

CREATE TABLE setup_links (
    token_hash bytea PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);

-- Threads, runs and events ----------------------------------------------------------------------------------------

CREATE TABLE threads (
    thread_id     text PRIMARY KEY,
    owner_id      text NOT NULL REFERENCES users ON DELETE CASCADE,
    title         text NOT NULL DEFAULT '',
    assistant_id  text NOT NULL DEFAULT 'agent',
    status        text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'closed')),
    run_status    text NOT NULL DEFAULT 'idle' CHECK (run_status IN ('idle', 'busy', 'interrupted', 'error')),
    message_count integer NOT NULL DEFAULT 0,
    turn_count    integer NOT NULL DEFAULT 0,
    last_seq      bigint NOT NULL DEFAULT 0,
    metadata      jsonb NOT NULL DEFAULT '{}',
    created_at    timestamptz NOT NULL DEFAULT now(),
    last_active   timestamptz NOT NULL DEFAULT now(),
    -- The owner is what stands before the hyphen before the last 36 characters.
    CONSTRAINT threads_owner_in_id CHECK (
        left(thread_id, length(thread_id) - 37) = owner_id AND thread_id = owner_id || '-' || right(thread_id, 36)
    )
);
CREATE INDEX threads_recent ON threads (owner_id, last_active DESC, thread_id);

CREATE TABLE runs (
    run_id           uuid PRIMARY KEY,
    thread_id        text NOT NULL REFERENCES threads ON DELETE CASCADE,
    owner_id         text NOT NULL,
    assistant_id     text NOT NULL DEFAULT 'agent',
    kind             text NOT NULL CHECK (kind IN ('message', 'resume')),
    input            jsonb NOT NULL,
    status           text NOT NULL DEFAULT 'queued' CHECK (
        status IN ('queued', 'running', 'interrupted', 'success', 'error', 'timeout', 'cancelled')
    ),
    error            jsonb,
    attempt          integer NOT NULL DEFAULT 0,
    generation       bigint NOT NULL DEFAULT 0,
    lease_expires_at timestamptz,
    worker           text,
    stop_reason      text,
    priority         integer NOT NULL DEFAULT 0,
    idempotency_key  text,
    request_digest   text,
    usage            jsonb,
    model            text,
    created_at       timestamptz NOT NULL DEFAULT now(),
    started_at       timestamptz,
    finished_at      timestamptz,
    queue_no         bigint GENERATED ALWAYS AS IDENTITY
);
CREATE UNIQUE INDEX runs_idempotency ON runs (owner_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE UNIQUE INDEX runs_one_running_per_thread ON runs (thread_id) WHERE status = 'running';
CREATE INDEX runs_claimable ON runs (priority DESC, queue_no) WHERE status = 'queued';
CREATE INDEX runs_lease ON runs (lease_expires_at) WHERE status = 'running';
CREATE INDEX runs_of_thread ON runs (thread_id, queue_no);

-- No foreign key: it would make every group commit lock its threads once more. Deleting a thread deletes its events.
-- `data` is the JSON text exactly as it goes out in the SSE data line.
CREATE TABLE run_events (
    thread_id  text NOT NULL,
    seq        bigint NOT NULL,
    run_id     uuid NOT NULL,
    generation bigint NOT NULL,
    type       text NOT NULL,
    data       text NOT NULL,
    owner_id   text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (thread_id, seq)
);

CREATE TABLE interrupts (
    id                text PRIMARY KEY CHECK (id ~ '^[0-9a-f]{32}$'),
    thread_id         text NOT NULL REFERENCES threads ON DELETE CASCADE,
    owner_id          text NOT NULL,
    run_id            uuid NOT NULL,
    call_id           text NOT NULL,
    tool_name         text NOT NULL,
    tool_input        jsonb NOT NULL,
    description       text NOT NULL DEFAULT '',
    facts             jsonb NOT NULL DEFAULT '{}',
    base_file_hash    text,
    digest            text NOT NULL,
    allowed_decisions text[] NOT NULL,
    args_schema       jsonb,
    agent             text NOT NULL DEFAULT 'agent',
    parent_call_id    text,
    checkpoint_ns     text NOT NULL DEFAULT '',
    status            text NOT NULL DEFAULT 'pending' CHECK (
        status IN ('pending', 'approved', 'edited', 'rejected', 'responded', 'expired', 'cancelled', 'superseded')
    ),
    decision          jsonb,
    decided_by        text,
    decided_via       text,
    decided_at        timestamptz,
    executed_input    jsonb,
    seq               bigint,
    resume_run_id     uuid,
    created_at        timestamptz NOT NULL DEFAULT now(),
    expires_at        timestamptz NOT NULL
);
CREATE INDEX interrupts_of_thread ON interrupts (thread_id, created_at);
CREATE INDEX interrupts_pending ON interrupts (thread_id) WHERE status = 'pending';
CREATE INDEX interrupts_expiry ON interrupts (expires_at) WHERE status = 'pending';
CREATE INDEX interrupts_of_owner ON interrupts (owner_id, status, created_at DESC);

CREATE TABLE messages (
    id         text NOT NULL,
    thread_id  text NOT NULL REFERENCES threads ON DELETE CASCADE,
    owner_id   text NOT NULL,
    run_id     uuid,
    position   bigint NOT NULL,
    role       text NOT NULL CHECK (role IN ('user', 'assistant', 'tool')),
    content    text NOT NULL,
    thinking   text,
    tool_calls jsonb,
    call_id    text,
    usage      jsonb,
    agent      text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (thread_id, position)
);

-- owner_id NULL: the system's own, for everybody.
CREATE TABLE assistants (
    assistant_id text PRIMARY KEY,
    owner_id     text REFERENCES users ON DELETE CASCADE,
    name         text NOT NULL,
    config       jsonb NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX assistants_of_owner ON assistants (owner_id);
INSERT INTO assistants (assistant_id, name) VALUES ('agent', 'Agent');  -- before row security binds the owner, too

-- The wall ----------------------------------------------------------------------------------------------------------
-- `checkpoint_migrations` stays without: the saver's set-up writes it as the owner, and neither role may touch it.
-- FORCE: not even the tables' owner passes. A later migration that changes rows must lift it for its transaction.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'users', 'refresh_tokens', 'revoked_access_tokens', 'login_failures', 'setup_links', 'threads', 'runs',
        'run_events', 'interrupts', 'messages', 'assistants',
        'checkpoints', 'checkpoint_blobs', 'checkpoint_writes'
    ] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', name);
    END LOOP;
END $$;

CREATE POLICY own ON users TO :"app" USING (user_id = current_setting('app.user_id', true));
CREATE POLICY own ON threads TO :"app" USING (owner_id = current_setting('app.user_id', true));
CREATE POLICY own ON runs TO :"app" USING (owner_id = current_setting('app.user_id', true));
CREATE POLICY own ON run_events TO :"app" USING (owner_id = current_setting('app.user_id', true));
CREATE POLICY own ON interrupts TO :"app" USING (owner_id = current_setting('app.user_id', true));
CREATE POLICY own ON messages TO :"app" USING (owner_id = current_setting('app.user_id', true));
CREATE POLICY own ON assistants TO :"app" USING (owner_id = current_setting('app.user_id', true));
CREATE POLICY everybodys ON assistants FOR SELECT TO :"app" USING (owner_id IS NULL);
CREATE POLICY own ON checkpoints TO :"app"
    USING (left(thread_id, length(thread_id) - 37) = current_setting('app.user_id', true));
CREATE POLICY own ON checkpoint_blobs TO :"app"
    USING (left(thread_id, length(thread_id) - 37) = current_setting('app.user_id', true));
CREATE POLICY own ON checkpoint_writes TO :"app"
    USING (left(thread_id, length(thread_id) - 37) = current_setting('app.user_id', true));

CREATE POLICY everything ON users TO :"system" USING (true);
CREATE POLICY everything ON refresh_tokens TO :"system" USING (true);
CREATE POLICY everything ON revoked_access_tokens TO :"system" USING (true);
CREATE POLICY everything ON login_failures TO :"system" USING (true);
CREATE POLICY everything ON setup_links TO :"system" USING (true);
CREATE POLICY everything ON threads TO :"system" USING (true);
CREATE POLICY everything ON runs TO :"system" USING (true);
CREATE POLICY everything ON run_events TO :"system" USING (true);
CREATE POLICY everything ON interrupts TO :"system" USING (true);
CREATE POLICY everything ON messages TO :"system" USING (true);
CREATE POLICY everything ON assistants TO :"system" USING (true);
CREATE POLICY everything ON checkpoints TO :"system" USING (true);
CREATE POLICY everything ON checkpoint_blobs TO :"system" USING (true);
CREATE POLICY everything ON checkpoint_writes TO :"system" USING (true);

-- The verbs ---------------------------------------------------------------------------------------------------------

GRANT USAGE ON SCHEMA public TO :"app", :"system";
GRANT SELECT ON alembic_version TO :"app", :"system";

GRANT SELECT ON users TO :"app";
GRANT SELECT, INSERT, UPDATE, DELETE ON threads, runs, interrupts, messages, assistants TO :"app";
GRANT SELECT, INSERT, DELETE ON run_events TO :"app";
GRANT SELECT, INSERT, UPDATE, DELETE ON checkpoints, checkpoint_blobs, checkpoint_writes TO :"app";

GRANT SELECT, INSERT, UPDATE ON users TO :"system";
GRANT SELECT, INSERT, UPDATE, DELETE ON refresh_tokens, revoked_access_tokens, setup_links TO :"system";
GRANT SELECT, INSERT, DELETE ON login_failures TO :"system";
GRANT SELECT, UPDATE, DELETE ON threads TO :"system";
GRANT SELECT, INSERT, UPDATE, DELETE ON runs TO :"system";
GRANT SELECT, INSERT, DELETE ON run_events TO :"system";
GRANT SELECT, INSERT, UPDATE ON interrupts TO :"system";
GRANT SELECT, INSERT ON messages TO :"system";
GRANT SELECT ON assistants TO :"system";
GRANT SELECT, DELETE ON checkpoints, checkpoint_blobs, checkpoint_writes TO :"system";
