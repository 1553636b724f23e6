-- A copy's files come before its row: until then this keeps its sandbox from those who clear up. Whoever copies prolongs it.
CREATE TABLE coming_threads (
    thread_id text PRIMARY KEY,
    owner_id  text NOT NULL REFERENCES users ON DELETE CASCADE,
    until     timestamptz NOT NULL
);
CREATE INDEX coming_threads_of_owner ON coming_threads (owner_id);

ALTER TABLE coming_threads ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
REVOKE ALL ON coming_threads FROM PUBLIC;
CREATE POLICY own ON coming_threads TO :"app" USING (owner_id = current_setting('app.user_id', true));
CREATE POLICY everything ON coming_threads TO :"system" USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON coming_threads TO :"app";
GRANT SELECT ON coming_threads TO :"system";
