-- What a build asks of its worker, and its place among the others that wait.
ALTER TABLE builds ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE builds ADD COLUMN priority BIGINT NOT NULL DEFAULT 0;
-- JSON: name to value; all must be the worker's.
ALTER TABLE builds ADD COLUMN worker_labels TEXT NOT NULL DEFAULT '{}';
-- Empty: any.
ALTER TABLE builds ADD COLUMN platform TEXT NOT NULL DEFAULT '';

-- Who had a build, one row for each attempt.
CREATE TABLE build_attempts (
    build_id TEXT NOT NULL REFERENCES builds (id) ON DELETE CASCADE,
    attempt BIGINT NOT NULL,
    worker_id TEXT NOT NULL,
    started_ms BIGINT NOT NULL,
    PRIMARY KEY (build_id, attempt)
);

-- What was decided of a build worker while it ran. What it is, it tells itself.
CREATE TABLE workers (
    id TEXT PRIMARY KEY,
    drained BOOLEAN NOT NULL,
    -- JSON: name to value, or to null for a label of the worker's own that was taken away.
    labels TEXT NOT NULL
);
