-- Runs at set times ----------------------------------------------------------------------------------------------------

-- `payload` is what the client sent, as it is shown; `request` what a run is started with. `next_run_date` is the
-- occurrence that comes next, NULL when none does any more.
CREATE TABLE crons (
    cron_id          uuid PRIMARY KEY,
    owner_id         text NOT NULL REFERENCES users ON DELETE CASCADE,
    assistant_id     text NOT NULL,
    thread_id        text REFERENCES threads ON DELETE CASCADE,  -- NULL: a new one for each run
    schedule         text NOT NULL,
    timezone         text,
    end_time         timestamptz,
    payload          jsonb NOT NULL,
    request          jsonb NOT NULL,
    policy           text NOT NULL,
    on_run_completed text CHECK (on_run_completed IN ('delete', 'keep')),
    metadata         jsonb NOT NULL DEFAULT '{}',
    enabled          boolean NOT NULL DEFAULT true,
    disabled_reason  text,
    last_error       text,
    last_run_date    timestamptz,
    last_run_id      uuid,
    next_run_date    timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX crons_due ON crons (next_run_date) WHERE enabled AND next_run_date IS NOT NULL;
CREATE INDEX crons_of_owner ON crons (owner_id, created_at DESC);
CREATE INDEX crons_of_thread ON crons (thread_id) WHERE thread_id IS NOT NULL;

-- Webhooks: what is to be told to somebody else about a run that has ended ----------------------------------------------

-- Written in the transaction that ends the run. Who delivers it moves `next_attempt_at` first: that is its lease.
CREATE TABLE webhook_deliveries (
    delivery_id     uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    owner_id        text NOT NULL REFERENCES users ON DELETE CASCADE,
    thread_id       text NOT NULL,
    run_id          uuid NOT NULL,
    url             text NOT NULL,
    checkpoint_id   text,  -- where the run left the thread's state
    payload         jsonb NOT NULL,
    state           text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
    attempts        integer NOT NULL DEFAULT 0,
    last_error      text,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    created_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (owner_id, next_attempt_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_finished ON webhook_deliveries (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX webhook_deliveries_of_owner ON webhook_deliveries (owner_id);

-- The wall and the verbs -----------------------------------------------------------------------------------------------

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['crons', 'webhook_deliveries'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', name);
    END LOOP;
END $$;

CREATE POLICY own ON crons TO :"app" USING (owner_id = current_setting('app.user_id', true));
CREATE POLICY everything ON crons TO :"system" USING (true);
CREATE POLICY everything ON webhook_deliveries TO :"system" USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON crons TO :"app";
GRANT SELECT ON crons TO :"system";
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_deliveries TO :"system";
