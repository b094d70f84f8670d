-- What the end of its gateway means for a build: 'connected' it ends too, 'returning' its client may come back through another
-- gateway, 'absent' nobody waits for it. `orphaned_ms`: since when it is known that its gateway is gone, 0: it is not.
ALTER TABLE builds ADD COLUMN attendance TEXT NOT NULL DEFAULT 'connected';
ALTER TABLE builds ADD COLUMN orphaned_ms BIGINT NOT NULL DEFAULT 0;
