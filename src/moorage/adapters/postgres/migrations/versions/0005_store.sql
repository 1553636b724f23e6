-- What a user's clients keep between threads ---------------------------------------------------------------------------

-- A namespace is below its owner, who stands in a column of their own: no label can name another. `words` is made of those
-- parts of the value that its client wants found.
CREATE TABLE store_items (
    owner_id   text NOT NULL REFERENCES users ON DELETE CASCADE,
    namespace  text[] NOT NULL CHECK (cardinality(namespace) > 0),
    key        text NOT NULL CHECK (key <> ''),
    value      jsonb NOT NULL CHECK (jsonb_typeof(value) = 'object'),
    words      tsvector NOT NULL,
    ttl        interval,
    expires_at timestamptz,  -- once the time to live since the last use is over
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner_id, namespace, key)
);
CREATE INDEX store_items_latest ON store_items (owner_id, updated_at DESC);
CREATE INDEX store_items_expiry ON store_items (expires_at) WHERE expires_at IS NOT NULL;

ALTER TABLE store_items ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
REVOKE ALL ON store_items FROM PUBLIC;
CREATE POLICY own ON store_items TO :"app" USING (owner_id = current_setting('app.user_id', true));
CREATE POLICY everything ON store_items TO :"system" USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON store_items TO :"app";
GRANT SELECT, DELETE ON store_items TO :"system";
