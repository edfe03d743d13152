#!/usr/bin/env bash
# Has galaxy-importer judge the built collection, as Galaxy does before it publishes one: metadata, README files, docs
# of all plugins, roles, licences. It has an environment of its own in ~/.cache. What make lint runs anyway is left out.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${XDG_CACHE_HOME:-$HOME/.cache}/turtles-kubevirt/galaxy
sum=$(sha256sum <requirements-galaxy.lock)
if [ "$(cat "$venv/.installed" 2>/dev/null)" != "$sum" ]; then
    echo "==> making $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
        -r requirements-galaxy.lock
    echo "$sum" >"$venv/.installed"
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$venv/bin/ansible-galaxy" collection build --output-path "$scratch" >/dev/null
cat >"$scratch/importer.cfg" <<CFG
[galaxy-importer]
CHECK_REQUIRED_TAGS = True
RUN_ANSIBLE_LINT = False
RUN_ANSIBLE_TEST = False
RUN_FLAKE8 = False
TMP_ROOT_DIR = $scratch
CFG
cd "$scratch"
GALAXY_IMPORTER_CONFIG=$scratch/importer.cfg PATH=$venv/bin:$PATH \
    "$venv/bin/python" -m galaxy_importer.main turtles-kubevirt-*.tar.gz >log 2>&1 || { cat log; exit 1; }
# Sanity tests that are ignored are all that it may warn of.
if grep -E '^(ERROR|CRITICAL|WARNING)' log | grep -v 'Ignore files skip ansible-test sanity tests'; then
    exit 1
fi
tail -n 1 log
