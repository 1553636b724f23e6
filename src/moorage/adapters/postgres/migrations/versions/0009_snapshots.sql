-- A thread's files as they were at a checkpoint. `manifest` is the digest under which their list is kept on the disk.
CREATE TABLE snapshots (
    snapshot_id   uuid PRIMARY KEY,
    thread_id     text NOT NULL REFERENCES threads ON DELETE CASCADE,
    owner_id      text NOT NULL,
    checkpoint_id text,  -- NULL: before the first
    kind          text NOT NULL CHECK (kind IN ('request', 'run', 'copy')),
    manifest      text NOT NULL CHECK (manifest ~ '^[0-9a-f]{64}$'),
    files         bigint NOT NULL,
    bytes         bigint NOT NULL,
    added_bytes   bigint NOT NULL,
    left_out      bigint NOT NULL,
    missed        bigint NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX snapshots_of_thread ON snapshots (thread_id, created_at DESC, snapshot_id DESC);
CREATE INDEX snapshots_of_owner ON snapshots (owner_id);

ALTER TABLE snapshots ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
REVOKE ALL ON snapshots FROM PUBLIC;
CREATE POLICY own ON snapshots TO :"app" USING (owner_id = current_setting('app.user_id', true));
GRANT SELECT, INSERT, UPDATE, DELETE ON snapshots TO :"app";
