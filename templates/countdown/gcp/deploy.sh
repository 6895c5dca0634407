#!/usr/bin/env bash
# Deploys this folder as a Google Cloud function with all it needs. Run it again after every change, or when it was
# interrupted: what is there is left, what is missing is made.
#
#   PROJECT=my-project ./deploy.sh            (also REGION, NAME, DATABASE, TIMEOUT, WHEEL; see function.sh)
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=/dev/null
source "$HERE/function.sh"

PROJECT="${PROJECT:-$(gcloud config get-value project 2>/dev/null)}"
[ -n "$PROJECT" ] || { echo "which project? PROJECT=my-project $0" >&2; exit 2; }
DATABASE="${DATABASE:-$NAME}"
BUCKET="${BUCKET:-$PROJECT-$NAME-payloads}"
RUNS_AS="$NAME-run@$PROJECT.iam.gserviceaccount.com"
WAKES_AS="$NAME-wake@$PROJECT.iam.gserviceaccount.com"

g() { gcloud "$@" --project="$PROJECT" --quiet; }
there() { g "$@" >/dev/null 2>&1; }
# What was made a moment ago is not known everywhere yet.
patiently() { g "$@" >/dev/null 2>&1 || { sleep "${PATIENCE:-10}"; g "$@" >/dev/null; }; }

echo "services"
g services enable cloudfunctions.googleapis.com run.googleapis.com cloudbuild.googleapis.com \
  artifactregistry.googleapis.com firestore.googleapis.com cloudtasks.googleapis.com cloudscheduler.googleapis.com \
  secretmanager.googleapis.com storage.googleapis.com
NUMBER="$(gcloud projects describe "$PROJECT" --format='value(projectNumber)')"
URL="https://$NAME-$NUMBER.$REGION.run.app"

echo "database $DATABASE"
there firestore databases describe --database="$DATABASE" ||
  g firestore databases create --database="$DATABASE" --location="$REGION" --type=firestore-native
# Nothing is searched by what a row holds: without an index there, a write is cheaper and a value may be long.
g firestore indexes fields update row --collection-group=everstep --database="$DATABASE" --disable-indexes --async

echo "queue $NAME"
RETRIES=(--max-attempts=-1 --min-backoff=1s --max-backoff=600s --max-doublings=10)
there tasks queues describe "$NAME" --location="$REGION" ||
  g tasks queues create "$NAME" --location="$REGION" "${RETRIES[@]}"
g tasks queues update "$NAME" --location="$REGION" "${RETRIES[@]}"

echo "bucket $BUCKET"
there storage buckets describe "gs://$BUCKET" ||
  g storage buckets create "gs://$BUCKET" --location="$REGION" --uniform-bucket-level-access --public-access-prevention

echo "service accounts"
there iam service-accounts describe "$RUNS_AS" ||
  g iam service-accounts create "$NAME-run" --display-name="$NAME: what the function runs as"
there iam service-accounts describe "$WAKES_AS" ||
  g iam service-accounts create "$NAME-wake" --display-name="$NAME: what wake-ups come from"
RUNNER="--member=serviceAccount:$RUNS_AS"
patiently projects add-iam-policy-binding "$PROJECT" "$RUNNER" --role=roles/datastore.user \
  --condition="expression=resource.name==\"projects/$PROJECT/databases/$DATABASE\",title=$NAME-database"
patiently tasks queues add-iam-policy-binding "$NAME" --location="$REGION" "$RUNNER" --role=roles/cloudtasks.enqueuer
patiently tasks queues add-iam-policy-binding "$NAME" --location="$REGION" "$RUNNER" --role=roles/cloudtasks.taskDeleter
# A task carries a token of the other account, and only who may act as it can ask for that.
patiently iam service-accounts add-iam-policy-binding "$WAKES_AS" "$RUNNER" --role=roles/iam.serviceAccountUser
patiently storage buckets add-iam-policy-binding "gs://$BUCKET" "$RUNNER" --role=roles/storage.objectUser

echo "secrets"
for secret in token secret; do
  there secrets describe "$NAME-$secret" || g secrets create "$NAME-$secret" --replication-policy=automatic
  there secrets versions describe latest --secret="$NAME-$secret" ||
    openssl rand -hex 32 | tr -d '\n' | g secrets versions add "$NAME-$secret" --data-file=-
  patiently secrets add-iam-policy-binding "$NAME-$secret" "$RUNNER" --role=roles/secretmanager.secretAccessor
done
# shellcheck disable=SC2034  # after_deploy may read it
TOKEN="$(g secrets versions access latest --secret="$NAME-token")"

echo "function $NAME"
STAGE="$(mktemp -d)"
trap 'rm -rf "$STAGE"' EXIT
for file in "${FILES[@]}"; do
  cp -R "$HERE/../$file" "$STAGE/"
done
if [ -n "${WHEEL:-}" ]; then # an Everstep of one's own
  cp "$WHEEL" "$STAGE/"
  sed -i.bak "s|^everstep\\[gcp\\].*|./$(basename "$WHEEL")[gcp]|" "$STAGE/requirements.txt" && rm "$STAGE/requirements.txt.bak"
fi
# What was set on it before (a key of one's own) stays: these are updates.
MORE=""
for name in EVERSTEP_PEERS EVERSTEP_CALLERS EVERSTEP_AUDIENCES; do
  [ -z "${!name:-}" ] || MORE="$MORE;$name=${!name}"
done
# Everybody may call: the function itself checks who does, and Cloud Run would take away the signature it checks.
g functions deploy "$NAME" --gen2 --region="$REGION" --runtime=python312 --source="$STAGE" --entry-point=main \
  --trigger-http --allow-unauthenticated --service-account="$RUNS_AS" --timeout="${TIMEOUT}s" --memory=512Mi \
  --cpu=1 --concurrency=1 --max-instances="${INSTANCES:-20}" \
  --update-env-vars="^;^EVERSTEP_STORE=firestore://$PROJECT/$DATABASE;EVERSTEP_BUCKET=$BUCKET;EVERSTEP_URL=$URL;EVERSTEP_ACCOUNT=$WAKES_AS;EVERSTEP_TIMEOUT=$TIMEOUT;EVERSTEP_QUEUE=projects/$PROJECT/locations/$REGION/queues/$NAME$MORE" \
  --update-secrets="EVERSTEP_TOKEN=$NAME-token:latest,EVERSTEP_SECRET=$NAME-secret:latest"

echo "sweep, $SWEEP"
JOB=("$NAME-sweep" --location="$REGION" --schedule="$SWEEP" --uri="$URL/sweep" --http-method=POST
  --oidc-service-account-email="$WAKES_AS" --oidc-token-audience="$URL" --attempt-deadline="${TIMEOUT}s")
if there scheduler jobs describe "$NAME-sweep" --location="$REGION"; then
  g scheduler jobs update http "${JOB[@]}"
else
  g scheduler jobs create http "${JOB[@]}"
fi

echo "it is at    $URL"
echo "its token:  TOKEN=\$(gcloud secrets versions access latest --secret=$NAME-token --project=$PROJECT)"
after_deploy
