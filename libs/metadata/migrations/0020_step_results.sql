-- What a step of the graph builder made, by its key; its layers are kept for as long as the row is.
CREATE TABLE step_results (
    key TEXT PRIMARY KEY,
    record BLOB NOT NULL,
    layers TEXT NOT NULL,
    description TEXT NOT NULL,
    size BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    last_used_ms BIGINT NOT NULL
);
CREATE INDEX step_results_used ON step_results (last_used_ms);
