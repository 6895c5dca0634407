#!/bin/sh
# Put together what is deployed: modules beside entry.py, packages and everything else in python_modules.
set -eu
cd "$(dirname "$0")"
files="app.py"
mkdir -p python_modules
for file in $files; do
  case $file in
    *.py) cp "../$file" src/ ;;
    *) cp -R "../$file" python_modules/ ;;
  esac
done
"${PYTHON:-python3}" -m everstep_cloudflare.vendor python_modules --requirements ../requirements.txt
