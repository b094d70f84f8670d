-- What cache mounts hold, as it was stored last. packs: JSON, [["sha256:...", bytes], ...], of the tree.
CREATE TABLE cache_mounts (
    key TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    sharing TEXT NOT NULL,
    version BIGINT NOT NULL,
    tree TEXT NOT NULL,
    tree_bytes BIGINT NOT NULL,
    packs TEXT NOT NULL,
    files BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    worker_id TEXT NOT NULL,
    description TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    last_used_ms BIGINT NOT NULL
);
