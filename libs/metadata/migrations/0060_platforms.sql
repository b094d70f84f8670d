-- Tags that mean an image for each of several platforms; the tag itself means one of these.
CREATE TABLE tag_platforms (
    name TEXT NOT NULL REFERENCES tags (name) ON DELETE CASCADE,
    platform TEXT NOT NULL,
    image_id TEXT NOT NULL REFERENCES images (id),
    PRIMARY KEY (name, platform)
);
CREATE INDEX tag_platforms_image ON tag_platforms (image_id);
