#!/bin/sh
# Remove the Worker, its objects and their records included:  ./teardown.sh
set -eu
cd "$(dirname "$0")"
npx wrangler delete "$@"
