#!/usr/bin/env bash
# Removes what deploy.sh made, runs and payloads included. Run it again when it was interrupted.
#
#   PROJECT=my-project ./teardown.sh --yes    (with the same REGION, NAME and DATABASE as it was deployed with)
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=/dev/null
source "$HERE/function.sh"

PROJECT="${PROJECT:-$(gcloud config get-value project 2>/dev/null)}"
[ -n "$PROJECT" ] || { echo "which project? PROJECT=my-project $0 --yes" >&2; exit 2; }
DATABASE="${DATABASE:-$NAME}"
BUCKET="${BUCKET:-$PROJECT-$NAME-payloads}"
RUNS_AS="$NAME-run@$PROJECT.iam.gserviceaccount.com"
WAKES_AS="$NAME-wake@$PROJECT.iam.gserviceaccount.com"
if [ "${1:-}" != "--yes" ]; then
  echo "this deletes the function $NAME, its queue, the database $DATABASE and the bucket $BUCKET; say --yes" >&2
  exit 2
fi

g() { gcloud "$@" --project="$PROJECT" --quiet; }
there() { g "$@" >/dev/null 2>&1; }

before_teardown
# The last shall be first: nothing calls a function that is gone.
if there scheduler jobs describe "$NAME-sweep" --location="$REGION"; then
  g scheduler jobs delete "$NAME-sweep" --location="$REGION"
fi
if there tasks queues describe "$NAME" --location="$REGION"; then
  g tasks queues delete "$NAME" --location="$REGION"
fi
if there functions describe "$NAME" --gen2 --region="$REGION"; then
  g functions delete "$NAME" --gen2 --region="$REGION"
fi
for secret in token secret; do
  if there secrets describe "$NAME-$secret"; then
    g secrets delete "$NAME-$secret"
  fi
done
if there iam service-accounts describe "$RUNS_AS"; then
  g projects remove-iam-policy-binding "$PROJECT" "--member=serviceAccount:$RUNS_AS" --role=roles/datastore.user \
    --all >/dev/null
  g iam service-accounts delete "$RUNS_AS"
fi
if there iam service-accounts describe "$WAKES_AS"; then
  g iam service-accounts delete "$WAKES_AS"
fi
if there storage buckets describe "gs://$BUCKET"; then
  g storage rm -r "gs://$BUCKET"
fi
if [ "$DATABASE" != "(default)" ] && there firestore databases describe --database="$DATABASE"; then
  g firestore databases delete --database="$DATABASE"
fi
echo "gone; a queue's name can be used again in a few days, a database's in a few minutes"
