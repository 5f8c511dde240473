#!/usr/bin/env bash
# Write the lock files from a fresh environment. Usage: scripts/lock.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
"${1:-python3}" -m venv "$fresh"
pip() { "$fresh/bin/python" -m pip --disable-pip-version-check "$@"; }
pip install --quiet "$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements.lock)"
pip install --quiet .
header="# Written by scripts/lock.sh from pyproject.toml. torch is installed first and by itself; see the Makefile."
{ echo "$header"; pip freeze --exclude finetune-pipeline --exclude pip --exclude setuptools | sed 's/^torch @.*/torch==2.13.0/; s/+cpu//'; } > "$fresh/run"
pip install --quiet ".[test]"
{ echo "$header"; pip freeze --exclude finetune-pipeline --exclude pip --exclude setuptools | sed 's/^torch @.*/torch==2.13.0/; s/+cpu//' | grep -vxFf "$fresh/run"; } > requirements-test.lock
mv "$fresh/run" requirements.lock
