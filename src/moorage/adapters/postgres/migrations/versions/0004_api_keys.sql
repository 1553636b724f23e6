-- API keys: what programs send in place of an access token ------------------------------------------------------------

CREATE TABLE api_keys (
    key_id       uuid PRIMARY KEY,
    user_id      text NOT NULL REFERENCES users ON DELETE CASCADE,
    name         text NOT NULL,
    prefix       text NOT NULL,
    key_hash     bytea NOT NULL UNIQUE,
    scopes       text[] NOT NULL CHECK (scopes <@ ARRAY['read', 'run', 'approve'] AND scopes <> '{}'),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    last_used_at timestamptz
);
CREATE INDEX api_keys_of_user ON api_keys (user_id, created_at DESC, key_id DESC);

-- Tickets: each stands once, within seconds, for the access token or the key that it was asked for with ---------------

CREATE TABLE ws_tickets (
    ticket_hash      bytea PRIMARY KEY,
    user_id          text NOT NULL REFERENCES users ON DELETE CASCADE,
    key_id           uuid REFERENCES api_keys ON DELETE CASCADE,
    token_version    integer,
    token_id         text,
    token_family     uuid,
    token_expires_at timestamptz,
    expires_at       timestamptz NOT NULL,
    CHECK (key_id IS NOT NULL OR num_nulls(token_version, token_id, token_family, token_expires_at) = 0)
);
CREATE INDEX ws_tickets_user ON ws_tickets (user_id);
CREATE INDEX ws_tickets_key ON ws_tickets (key_id) WHERE key_id IS NOT NULL;
CREATE INDEX ws_tickets_expiry ON ws_tickets (expires_at);

-- The wall and the verbs -----------------------------------------------------------------------------------------------

ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE ws_tickets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
REVOKE ALL ON api_keys, ws_tickets FROM PUBLIC;

CREATE POLICY own ON api_keys TO :"app" USING (user_id = current_setting('app.user_id', true));
CREATE POLICY everything ON api_keys TO :"system" USING (true);
CREATE POLICY everything ON ws_tickets TO :"system" USING (true);

GRANT SELECT, INSERT, DELETE ON api_keys TO :"app";
GRANT SELECT, UPDATE, DELETE ON api_keys TO :"system";
GRANT SELECT, INSERT, UPDATE, DELETE ON ws_tickets TO :"system";
