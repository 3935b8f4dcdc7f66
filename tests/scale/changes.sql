INSERT INTO files (feed, path, device, inode, size, mtime_ns, root_inode, dropped_at, state, queued_at, due_at,
  attempts, left_in_place)
VALUES (:feed, 'export-' || lpad(nextval('scale_files')::text, 7, '0') || '.csv', 1, :number, 10240,
  1700000000000000000 + :number, 2, 1700000000000, 'queued', 1700000000000, 1700000000000, 0, false)
RETURNING id AS {id} \gset

UPDATE files SET owner = 'node-1/1', state = 'uploading' WHERE id = :{id} AND owner IS NULL;

UPDATE files SET grant_url = 'https://store.example/bucket/tenant-123/table-456/export-0000001.csv?X-Amz-Algorithm='
  || 'AWS4-HMAC-SHA256&X-Amz-Credential=EXAMPLE%2F20261126%2Feu-west-1%2Fs3%2Faws4_request&X-Amz-Date=20261126T020000Z'
  || '&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Signature=' || repeat('0123456789abcdef', 4),
  grant_expires_at = 1700003600000, grant_lifetime_ms = 3600000, grant_headers = '{{}}'
WHERE id = :{id} AND state = 'uploading' AND owner = 'node-1/1';

UPDATE files SET state = 'uploaded', sender = 'node-1',
  target = 'https://api.example/tenant/tenant-123/datatable/table-456',
  md5 = '0123456789abcdef0123456789abcdef', etag = '"0123456789abcdef0123456789abcdef"', verified = true, status = 200,
  request_id = 'r-1', origin = 'https://store.example', started_at = 1700000000000, finished_at = 1700000001000,
  attempts = 0, grant_url = NULL, grant_expires_at = NULL, grant_lifetime_ms = NULL, grant_headers = NULL
WHERE id = :{id} AND state = 'uploading' AND owner = 'node-1/1';

UPDATE files SET state = 'archived', closed_at = 1700000002000, owner = NULL,
  destination = '/srv/exports/orders/archive/export-0000001.csv'
WHERE id = :{id} AND state = 'uploaded' AND owner = 'node-1/1';
