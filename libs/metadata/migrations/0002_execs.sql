-- Execs that were made; `spec` and `status` are kept encoded.
CREATE TABLE execs (
    id TEXT PRIMARY KEY,
    container_id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    spec BLOB NOT NULL,
    started BOOLEAN NOT NULL,
    status BLOB NOT NULL
);
CREATE INDEX execs_container ON execs (container_id);
