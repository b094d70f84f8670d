-- Trees of contexts that clients have sent, so that the next one is sent by difference. packs: JSON, [["sha256:...", bytes], ...].
CREATE TABLE context_trees (
    id TEXT PRIMARY KEY,
    source TEXT NOT NULL,
    tree TEXT NOT NULL,
    tree_bytes BIGINT NOT NULL,
    packs TEXT NOT NULL,
    used_ms BIGINT NOT NULL
);
CREATE INDEX context_trees_by_source ON context_trees (source, used_ms);
