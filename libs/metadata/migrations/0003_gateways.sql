-- Several gateways on one database: each process is a session, which lives while its time is renewed.
CREATE TABLE gateways (
    id TEXT PRIMARY KEY,
    session TEXT NOT NULL,
    until_ms BIGINT NOT NULL
);

-- The session whose client waits for the build.
ALTER TABLE builds ADD COLUMN gateway TEXT NOT NULL DEFAULT '';

-- Images that a build stands on: they outlive a removal until the build has ended.
CREATE TABLE build_images (
    build_id TEXT NOT NULL REFERENCES builds (id) ON DELETE CASCADE,
    image_id TEXT NOT NULL REFERENCES images (id),
    PRIMARY KEY (build_id, image_id)
);
CREATE INDEX build_images_image ON build_images (image_id);

ALTER TABLE execs ADD COLUMN created_ms BIGINT NOT NULL DEFAULT 0;
