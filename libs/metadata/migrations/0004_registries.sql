-- What images are called by the digest of their manifest or index: "busybox@sha256:...".
CREATE TABLE digests (
    name TEXT PRIMARY KEY,
    image_id TEXT NOT NULL REFERENCES images (id)
);
CREATE INDEX digests_image ON digests (image_id);

-- How layers look in registries. Without a repository the blob lies in the layer store.
CREATE TABLE packed (
    diff_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    repository TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size BIGINT NOT NULL,
    PRIMARY KEY (diff_id, digest, repository)
);
