#!/usr/bin/env bash
# The procedure of the vendor's guide, for each file: one call that asks for the URL, one that sends the file there.
# two_curls.sh BASE_URL FILE…; $API_KEY holds the key.
set -euo pipefail
base_url=$1
shift
for file in "$@"; do
  read -r size modified < <(stat --format '%s %Y' -- "$file")
  answer=$(curl --silent --show-error --fail --header "x-api-key: $API_KEY" \
    "$base_url/tenant/tenant-123/datatable/table-456/uploads/presignedurl?datasetid=dataset-1&filename=${file##*/}&filesize=$size&filelastmodified=${modified}000")
  url=${answer#*\"PreSignedUploadUrl\": \"}
  curl --silent --show-error --fail --upload-file "$file" "${url%%\"*}"
done
