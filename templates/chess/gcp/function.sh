#!/usr/bin/env bash
# What is particular about this function; deploy.sh and teardown.sh read it.

NAME="${NAME:-chess}"       # of the function and, as a beginning, of all that belongs to it
REGION="${REGION:-europe-west1}"
TIMEOUT="${TIMEOUT:-60}"    # seconds an invocation may take; the lease of a run is as long
SWEEP="${SWEEP:-*/10 * * * *}"
PAUSE="${PAUSE:-10}"        # seconds a move
# shellcheck disable=SC2034  # deploy.sh reads it
FILES=(app.py players.py board gcp/main.py gcp/requirements.txt)

# Lets everybody read the board. There is no gcloud command for rules, so this is their API.
release_rules() {
  local api="https://firebaserules.googleapis.com/v1/projects/$PROJECT" release="cloud.firestore" ruleset body
  [ "$DATABASE" = "(default)" ] || release="cloud.firestore/$DATABASE"
  gcloud services enable firebaserules.googleapis.com --project="$PROJECT" --quiet
  body="$(python3 -c 'import json, sys; print(json.dumps({"source": {"files": [{"name": "firestore.rules", "content": sys.stdin.read()}]}}))' \
    <"$HERE/firestore.rules")"
  ruleset="$(call_api POST "$api/rulesets" "$body" | python3 -c 'import json, sys; print(json.load(sys.stdin)["name"])')"
  body="{\"name\": \"projects/$PROJECT/releases/$release\", \"rulesetName\": \"$ruleset\"}"
  call_api PATCH "$api/releases/$release" "{\"release\": $body}" >/dev/null ||
    call_api POST "$api/releases" "$body" >/dev/null
}

call_api() {
  curl --silent --show-error --fail --request "$1" "$2" --data "$3" --header "Content-Type: application/json" \
    --header "X-Goog-User-Project: $PROJECT" --header "Authorization: Bearer $(gcloud auth print-access-token)"
}

after_deploy() {
  release_rules
  # The same id again changes nothing: the series goes on where it is.
  curl --silent --show-error --fail --request POST "$URL/workflows/chess" --header "Content-Type: application/json" \
    --header "Authorization: Bearer $TOKEN" --data "{\"id\": \"series\", \"args\": [1, $PAUSE]}" >/dev/null
  echo "the board:  $URL/board"
}

before_teardown() {
  :
}
