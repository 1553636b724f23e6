-- The tool-call journal: a row before a side-effecting tool starts, its result right after (at most once) --------------

CREATE TABLE tool_calls (
    thread_id     text NOT NULL REFERENCES threads ON DELETE CASCADE,
    checkpoint_ns text NOT NULL,  -- of the graph that holds the AI message: '' for the root
    message_id    text NOT NULL,  -- of the AI message that made the call
    position      integer NOT NULL,  -- of the call in it, from 0
    owner_id      text NOT NULL,
    run_id        uuid NOT NULL,
    generation    bigint NOT NULL,
    tool_call_id  text NOT NULL,
    tool          text NOT NULL,
    args          jsonb NOT NULL,
    state         text NOT NULL CHECK (state IN ('started', 'done', 'unknown')),
    result        jsonb,
    started_at    timestamptz NOT NULL DEFAULT now(),
    finished_at   timestamptz,
    PRIMARY KEY (thread_id, checkpoint_ns, message_id, position)
);
CREATE INDEX tool_calls_of_run ON tool_calls (run_id);

-- Approvals: which call of the graph asked, what the human was shown of the change, remembered answers -----------------

ALTER TABLE interrupts
    ADD COLUMN graph_id     text,  -- LangGraph's id: a call that asks twice keeps it, `id` is then another one
    ADD COLUMN message_id   text,
    ADD COLUMN position     integer,
    ADD COLUMN diff         text;
CREATE INDEX interrupts_of_run ON interrupts (run_id);

CREATE TABLE approval_rules (
    rule_id      uuid PRIMARY KEY,
    thread_id    text NOT NULL REFERENCES threads ON DELETE CASCADE,
    owner_id     text NOT NULL,
    effect       text NOT NULL CHECK (effect IN ('allow', 'deny')),
    tool         text NOT NULL,
    match        text NOT NULL CHECK (match IN ('same', 'prefix', 'path')),
    pattern      jsonb NOT NULL,
    interrupt_id text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz
);
CREATE INDEX approval_rules_of_thread ON approval_rules (thread_id, created_at);

-- Answers to POSTs that came with an Idempotency-Key; a message's is kept with its run ---------------------------------

CREATE TABLE idempotency_keys (
    owner_id   text NOT NULL REFERENCES users ON DELETE CASCADE,
    key        text NOT NULL,
    digest     text NOT NULL,
    answer     jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner_id, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

-- Runs, threads, messages ----------------------------------------------------------------------------------------------

-- `base_checkpoint_id`: the thread's latest root checkpoint when the run first started, for `rollback`; NULL for none.
ALTER TABLE runs ADD COLUMN base_checkpoint_id text;
ALTER TABLE threads
    ADD COLUMN first_seq  bigint NOT NULL DEFAULT 1,  -- of the oldest event that is kept
    ADD COLUMN graph_open boolean NOT NULL DEFAULT true;  -- the last run may have left calls without a result
ALTER TABLE threads ALTER COLUMN graph_open SET DEFAULT false;
ALTER TABLE messages ADD COLUMN duration_ms integer;
CREATE INDEX run_events_age ON run_events (created_at);
CREATE INDEX runs_active_of_owner ON runs (owner_id) WHERE status = 'running';

-- Words for full-text search. Chinese, Japanese and Korean are not separated by spaces: each character is a word, and a
-- query for several is a phrase. What goes on for long without a space is cut: Postgres' parser takes time with the
-- square of its length, a minute for 'a_a_a_...'.
CREATE FUNCTION moorage_words(content text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT regexp_replace(
        regexp_replace(left(content, 100000), '([\u2E80-\u9FFF\uAC00-\uD7AF\uF900-\uFAFF])', ' \1 ', 'g'),
        '\S{200}', '\& ', 'g')
$$;
ALTER TABLE messages ADD COLUMN words tsvector
    GENERATED ALWAYS AS (to_tsvector('simple'::regconfig, left(moorage_words(content), 100000))) STORED;
-- Row security keeps the planner from an index on the words: one's own messages are looked through, newest first.
CREATE INDEX messages_of_owner ON messages (owner_id, created_at DESC, thread_id DESC, position DESC);

-- The fence: raises MO001 unless this generation holds the run, and keeps it so until the transaction ends --------------

CREATE FUNCTION moorage_hold(held_run uuid, held_generation bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM runs WHERE run_id = held_run AND generation = held_generation AND status = 'running' FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the claim is lost' USING ERRCODE = 'MO001';
    END IF;
END
$$;

-- The wall and the verbs -----------------------------------------------------------------------------------------------

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['tool_calls', 'approval_rules', 'idempotency_keys'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', name);
    END LOOP;
END $$;

CREATE POLICY own ON tool_calls TO :"app" USING (owner_id = current_setting('app.user_id', true));
CREATE POLICY own ON approval_rules TO :"app" USING (owner_id = current_setting('app.user_id', true));
CREATE POLICY own ON idempotency_keys TO :"app" USING (owner_id = current_setting('app.user_id', true));
CREATE POLICY everything ON tool_calls TO :"system" USING (true);
CREATE POLICY everything ON approval_rules TO :"system" USING (true);
CREATE POLICY everything ON idempotency_keys TO :"system" USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON tool_calls, approval_rules TO :"app";
GRANT SELECT, INSERT ON idempotency_keys TO :"app";
GRANT SELECT, INSERT, UPDATE, DELETE ON tool_calls TO :"system";
GRANT SELECT ON approval_rules TO :"system";
GRANT SELECT, DELETE ON idempotency_keys TO :"system";
GRANT DELETE ON messages TO :"system";
