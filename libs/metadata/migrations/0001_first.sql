-- Times are milliseconds since 1970; JSON is TEXT; messages of the bus are kept encoded.
CREATE TABLE images (
    id TEXT PRIMARY KEY,
    config BLOB NOT NULL,
    layers TEXT NOT NULL,
    parent_id TEXT NOT NULL,
    recorded_ms BIGINT NOT NULL
);
CREATE INDEX images_parent ON images (parent_id);

CREATE TABLE tags (
    name TEXT PRIMARY KEY,
    image_id TEXT NOT NULL REFERENCES images (id),
    tagged_ms BIGINT NOT NULL
);
CREATE INDEX tags_image ON tags (image_id);

CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    node_id TEXT NOT NULL,
    image_id TEXT NOT NULL,
    spec BLOB NOT NULL,
    request TEXT NOT NULL,
    status BLOB NOT NULL,
    created_ms BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    seq BIGINT NOT NULL
);
CREATE INDEX containers_image ON containers (image_id);

-- A build step's key and the image that it made.
CREATE TABLE steps (
    key TEXT PRIMARY KEY,
    image_id TEXT NOT NULL REFERENCES images (id)
);
CREATE INDEX steps_image ON steps (image_id);

CREATE TABLE builds (
    id TEXT PRIMARY KEY,
    options BLOB NOT NULL,
    state TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    worker_id TEXT NOT NULL,
    lease_until_ms BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    image_id TEXT NOT NULL,
    error TEXT NOT NULL,
    error_code BIGINT NOT NULL
);
CREATE INDEX builds_state ON builds (state, created_ms);

-- How far a stream of events is applied.
CREATE TABLE position (
    stream TEXT PRIMARY KEY,
    number BIGINT NOT NULL
);
