INSERT INTO feeds (name, known_at) SELECT n::text, 0 FROM generate_series(0, 63) n;
CREATE SEQUENCE scale_files CACHE 100;
CREATE TABLE scale_nodes (id int PRIMARY KEY, seen_at bigint NOT NULL);
INSERT INTO scale_nodes SELECT n, 0 FROM generate_series(1, 1000) n;
