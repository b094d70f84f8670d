-- What is remembered of a build after its end. `log` is the digest of its log in the layer store, empty: there is none;
-- `same` is alike for builds that are compared with each other; `recorded_ms` is 0 until its end is recorded.
ALTER TABLE builds ADD COLUMN log TEXT NOT NULL DEFAULT '';
ALTER TABLE builds ADD COLUMN log_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE builds ADD COLUMN same TEXT NOT NULL DEFAULT '';
ALTER TABLE builds ADD COLUMN recorded_ms BIGINT NOT NULL DEFAULT 0;
CREATE INDEX builds_same ON builds (same, created_ms);

-- The steps of a build, in the order in which they were told; `vertex` is kept encoded.
CREATE TABLE build_steps (
    build_id TEXT NOT NULL REFERENCES builds (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    vertex BLOB NOT NULL,
    PRIMARY KEY (build_id, number)
);
