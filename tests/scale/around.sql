INSERT INTO feeds (name, known_at) SELECT n::text, 0 FROM generate_series(0, 63) n;
CREATE SEQUENCE scale_files CACHE 100;
CREATE TABLE scale_nodes (name text PRIMARY KEY, epoch bigint NOT NULL, started_at bigint NOT NULL,
  seen_at bigint NOT NULL, lease_until bigint NOT NULL, version text NOT NULL);
INSERT INTO scale_nodes SELECT 'node-' || n, 1, 1700000000000, 1700000000000, 1700000060000, '0.1.0'
FROM generate_series(1, 1000) n;
