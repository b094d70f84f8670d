-- When a build's last attempt began, and when the build was over; 0: not yet.
ALTER TABLE builds ADD COLUMN started_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE builds ADD COLUMN ended_ms BIGINT NOT NULL DEFAULT 0;
