#!/usr/bin/env bash
# Copies the collection to FOLDER/ansible_collections/turtles/kubevirt, for ansible-test, which insists on such a path
# and on a git repository, and prints that path. What ansible-test keeps in tests/output makes its next run short. The
# engine isn't Ansible's to judge; ruff and mypy do that.
#
#     scripts/copy-collection.sh FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
copy=$1/ansible_collections/turtles/kubevirt
mkdir -p "$copy/tests/output"
find "$copy" -mindepth 1 -maxdepth 1 ! -name tests -exec rm -rf {} +
find "$copy/tests" -mindepth 1 -maxdepth 1 ! -name output -exec rm -rf {} +
git ls-files -z --cached --others --exclude-standard -- . ':!engine' \
    | while IFS= read -r -d '' file; do if [ -e "$file" ]; then printf '%s\0' "$file"; fi; done \
    | tar --create --null --files-from=- | tar --extract --directory="$copy"
git -C "$copy" init --quiet
git -C "$copy" config core.excludesFile /dev/null
git -C "$copy" add --all
echo "$copy"
