-- What its owner made of a session in their list. Neither is activity, and a copy begins with neither.
ALTER TABLE threads
    ADD COLUMN pinned   boolean NOT NULL DEFAULT false,
    ADD COLUMN archived boolean NOT NULL DEFAULT false;
