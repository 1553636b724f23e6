-- The table of the start held nothing that is needed: the system's assistants are the same for everybody, in the code.

DROP TABLE assistants;

-- Of the same uuid, each owner has an assistant of their own: a client makes it, so nobody can claim it, or learn of it.
CREATE TABLE assistants (
    owner_id     text NOT NULL REFERENCES users ON DELETE CASCADE,
    assistant_id uuid NOT NULL,
    graph_id     text NOT NULL,
    name         text NOT NULL,
    description  text,
    context      jsonb NOT NULL DEFAULT '{}',
    config       jsonb NOT NULL DEFAULT '{}',
    metadata     jsonb NOT NULL DEFAULT '{}',
    version      integer NOT NULL DEFAULT 1,  -- the one that counts; later ones may exist
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner_id, assistant_id)
);

CREATE TABLE assistant_versions (
    owner_id     text NOT NULL,
    assistant_id uuid NOT NULL,
    version      integer NOT NULL,
    graph_id     text NOT NULL,
    name         text NOT NULL,
    description  text,
    context      jsonb NOT NULL,
    config       jsonb NOT NULL,
    metadata     jsonb NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner_id, assistant_id, version),
    FOREIGN KEY (owner_id, assistant_id) REFERENCES assistants ON DELETE CASCADE
);

CREATE INDEX threads_of_assistant ON threads (owner_id, assistant_id);

-- The wall and the verbs -----------------------------------------------------------------------------------------------

ALTER TABLE assistants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE assistant_versions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
REVOKE ALL ON assistants, assistant_versions FROM PUBLIC;
CREATE POLICY own ON assistants TO :"app" USING (owner_id = current_setting('app.user_id', true));
CREATE POLICY own ON assistant_versions TO :"app" USING (owner_id = current_setting('app.user_id', true));
GRANT SELECT, INSERT, UPDATE, DELETE ON assistants TO :"app";
GRANT SELECT, INSERT ON assistant_versions TO :"app";
