#!/bin/sh
# Put together what is deployed: the application beside entry.py, its packages in python_modules.
set -eu
cd "$(dirname "$0")"
cp ../app.py src/
"${PYTHON:-python3}" -m everstep_cloudflare.vendor python_modules
