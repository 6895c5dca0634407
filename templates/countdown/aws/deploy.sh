#!/bin/sh
# Deploy, or bring up to date:  ./deploy.sh [stack] [arguments of `sam deploy`]
# Needs AWS credentials, the SAM command line, and this project's Python environment with everstep[aws] in it.
set -eu
cd "$(dirname "$0")"
stack=countdown
files="app.py" # what goes in beside other Python modules
case ${1:-} in ''|-*) ;; *) stack=$1; shift ;; esac

"${PYTHON:-python3}" -m everstep_aws.package build --app .. --requirements ../requirements.txt
cp function.py build/
for file in $files; do cp -R "../$file" build/; done
sam deploy --template-file template.yaml --stack-name "$stack" --resolve-s3 --capabilities CAPABILITY_IAM \
    --no-confirm-changeset --no-fail-on-empty-changeset "$@"
