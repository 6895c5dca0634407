#!/bin/sh
# Deploy, or bring up to date:  ./deploy.sh [arguments of `wrangler deploy`]
# Needs Node with npx, a login (`npx wrangler login`) or CLOUDFLARE_API_TOKEN, and a Python with everstep[cloudflare].
set -eu
cd "$(dirname "$0")"
./vendor.sh
npx wrangler deploy "$@"
echo "Once, if you have not: npx wrangler secret put EVERSTEP_TOKEN"
