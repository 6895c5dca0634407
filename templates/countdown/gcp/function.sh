#!/usr/bin/env bash
# What is particular about this function; deploy.sh and teardown.sh read it.

NAME="${NAME:-countdown}"   # of the function and, as a beginning, of all that belongs to it
REGION="${REGION:-europe-west1}"
TIMEOUT="${TIMEOUT:-60}"    # seconds an invocation may take; the lease of a run is as long
SWEEP="${SWEEP:-*/10 * * * *}"
# shellcheck disable=SC2034  # deploy.sh reads it
FILES=(app.py gcp/main.py gcp/requirements.txt)

after_deploy() {
  echo "start one:  curl -X POST $URL/workflows/countdown -H \"Authorization: Bearer \$TOKEN\" \\"
  echo "              -H 'Content-Type: application/json' -d '{\"id\": \"c1\", \"args\": [5, 60]}'"
}

before_teardown() {
  :
}
