#!/bin/sh
# Remove everything the stack made, its records included:  ./teardown.sh [stack]
set -eu
cd "$(dirname "$0")"
exec sam delete --stack-name "${1:-chess}" --no-prompts
