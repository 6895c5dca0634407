#!/bin/sh
# Put together what is deployed: the application beside entry.py, its packages and the page in python_modules.
set -eu
cd "$(dirname "$0")"
cp ../app.py ../players.py src/
"${PYTHON:-python3}" -m everstep_cloudflare.vendor python_modules --with 'chess>=1.10'
mkdir -p python_modules/board
cp ../board/index.html python_modules/board/
