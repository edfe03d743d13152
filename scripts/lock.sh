#!/usr/bin/env bash
# Writes the lock files: which version of each package the ranges mean, and the hashes of its files for all machines and
# Pythons. Versions that still fit their range stay; --upgrade (or --upgrade-package NAME) takes the newest ones.
set -euo pipefail
cd "$(dirname "$0")/.."
export UV_CUSTOM_COMPILE_COMMAND='make lock'

# Usage: compile LOCK RANGES... [OPTION...]
compile() {
    local lock=$1
    shift
    echo "==> $lock"
    .venv/bin/uv pip compile --quiet --no-config --universal --python-version 3.11 --fork-strategy fewest \
        --generate-hashes --no-emit-index-url --output-file "$lock" "$@"
}

# One version of each package in all of them: later ones take what earlier ones say.
engine=engine/requirements.lock install=engine/requirements-install.lock
compile $install --group engine/pyproject.toml:install "$@"
compile $engine engine/pyproject.toml --constraints $install "$@"
compile requirements-venv.lock requirements-venv.txt --constraints $install --constraints $engine "$@"
compile requirements-test.lock requirements-test.txt engine/pyproject.toml \
    --constraints $install --constraints $engine --constraints requirements-venv.lock "$@"

compile requirements-galaxy.lock requirements-galaxy.txt "$@"
compile requirements-docs.lock requirements-docs.txt "$@"

# What the matrix tests instead of the ansible-core above, and what that one wants in other versions.
others=$(mktemp)
trap 'rm -f "$others"' EXIT
sed -E '/^(ansible-core|resolvelib)==/d; /^ /d; s/ \\$//' requirements-test.lock >"$others"
for lock in tests/matrix/*.lock; do
    version=${lock##*/} version=${version%.lock}
    mapfile -t same < <(sed -E 's/^([a-zA-Z0-9._-]+)==.*/--no-emit-package=\1/' "$others" | grep ^--)
    echo "==> $lock"
    .venv/bin/uv pip compile --quiet --no-config --universal --python-version "$(scripts/matrix.sh --python "$version")" \
        --generate-hashes --no-emit-index-url --constraints "$others" "${same[@]}" --output-file "$lock" "$@" - \
        <<<"ansible-core~=$version.0"
done
