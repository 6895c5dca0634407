#!/bin/sh
# Applies the migration, deploys the relay, and tells the database where to ring. Repeatable.
#
#   PROJECT_REF=abcd DB_URL=postgresql://... TARGET=https://your-function.example SECRET=... sh supabase/deploy.sh
set -eu
: "${PROJECT_REF:?the project}" "${DB_URL:?its connection string}" "${TARGET:?the Python function}" "${SECRET:?16 bytes or more}"
cd "$(dirname "$0")"

migration=supabase/migrations/20260101000000_everstep.sql
[ -e "$migration" ] || { mkdir -p supabase/migrations && python3 -m everstep_supabase sql > "$migration"; }
psql "$DB_URL" -qc 'create extension if not exists pg_cron; create extension if not exists pg_net'
supabase db push --db-url "$DB_URL" --yes
supabase secrets set --project-ref "$PROJECT_REF" "EVERSTEP_TARGET=$TARGET" "EVERSTEP_SECRET=$SECRET"
supabase functions deploy everstep --project-ref "$PROJECT_REF" --no-verify-jwt
psql "$DB_URL" -q -v url="https://$PROJECT_REF.supabase.co/functions/v1/everstep/wake" -v secret="$SECRET" <<'SQL'
delete from vault.secrets where name in ('everstep_url', 'everstep_secret');
select vault.create_secret(:'url', 'everstep_url'), vault.create_secret(:'secret', 'everstep_secret');
SQL
echo "deployed: start one with POST $TARGET/workflows/countdown"
