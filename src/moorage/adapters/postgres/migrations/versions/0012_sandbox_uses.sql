-- Who moves files for long, outside of any run: other processes leave that sandbox alone. Whoever does so prolongs it.
CREATE TABLE sandbox_uses (
    use_id    uuid PRIMARY KEY,
    thread_id text NOT NULL,
    owner_id  text NOT NULL REFERENCES users ON DELETE CASCADE,
    until     timestamptz NOT NULL
);
CREATE INDEX sandbox_uses_of_thread ON sandbox_uses (thread_id);
CREATE INDEX sandbox_uses_of_owner ON sandbox_uses (owner_id);

ALTER TABLE sandbox_uses ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
REVOKE ALL ON sandbox_uses FROM PUBLIC;
CREATE POLICY own ON sandbox_uses TO :"app" USING (owner_id = current_setting('app.user_id', true));
CREATE POLICY everything ON sandbox_uses TO :"system" USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON sandbox_uses TO :"app";
GRANT SELECT ON sandbox_uses TO :"system";
