#!/usr/bin/env bash
# Builds the collection from the checkout and installs it into .venv, where its ansible-playbook finds it without any
# setting. Does nothing when the checkout hasn't changed since.
set -euo pipefail
cd "$(dirname "$0")/.."
# Targets that run side by side come here one after another.
exec 9<.
flock 9
target=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
installed=$target/ansible_collections/turtles/kubevirt

files() {
    if git rev-parse --git-dir >/dev/null 2>&1; then
        git ls-files -z --cached --others --exclude-standard
    else
        find . -type f -not -path './.*' -print0
    fi
}
# Files deleted but not committed yet are listed and missing; that they are missing counts too.
sum=$(files | sort -z | { xargs -0 sha256sum 2>&1 || true; } | sha256sum)
if [ "$(cat .venv/.installed-collection 2>/dev/null)" = "$sum" ] && [ -e "$installed/MANIFEST.json" ]; then
    exit 0
fi
echo "==> installing the collection into .venv"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
.venv/bin/ansible-galaxy collection build --output-path "$scratch" >/dev/null
.venv/bin/ansible-galaxy collection install --offline --no-deps --force --collections-path "$target" \
    "$scratch"/turtles-kubevirt-*.tar.gz >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; exit 1; }
echo "$sum" >.venv/.installed-collection
