#!/usr/bin/env bash
# Builds the documentation site in build/docs: the repository's own pages as they are, and one for each module, plugin
# and role. Any broken link or reference fails it. --pictures draws the pictures in docs/pictures again.
# It has an environment of its own in ~/.cache.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${XDG_CACHE_HOME:-$HOME/.cache}/turtles-kubevirt/docs
sum=$(sha256sum <requirements-docs.lock)
if [ "$(cat "$venv/.installed" 2>/dev/null)" != "$sum" ]; then
    echo "==> making $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
        -r requirements-docs.lock
    echo "$sum" >"$venv/.installed"
fi
if [ "${1:-}" = --pictures ]; then
    "$venv/bin/python" docs/pictures/draw.py
    "$venv/bin/termtosvg" render docs/pictures/quickstart.cast docs/pictures/quickstart.svg --template window_frame \
        --max-frame-duration 1500 --loop-delay 5000
    exit
fi

# The pages lie as they do in the repository, so that links between them hold in both.
out=build/docs
source=$out/source
rm -rf "$out"
mkdir -p "$source"
git ls-files -z LICENSE README.md docs engine/README.md 'roles/*/README.md' | xargs -0 cp --parents -t "$source"
cp docs/site/conf.py docs/site/index.md "$source"
{
    printf '# Roles\n\n```{toctree}\n:maxdepth: 1\n\n'
    git ls-files 'roles/*/README.md' | sed -E 's|roles/(.*)\.md|\1|'
    printf '```\n'
} >"$source/roles/index.md"

mkdir -m 700 "$source/collections"
ANSIBLE_COLLECTIONS_PATH=$(echo "$PWD"/.venv/lib/python3*/site-packages) PATH=$venv/bin:$PATH "$venv/bin/antsibull-docs" collection \
    --use-current --squash-hierarchy --fail-on-error --dest-dir "$source/collections" turtles.kubevirt
"$venv/bin/sphinx-build" --quiet --fail-on-warning --keep-going -d "$out/.doctrees" "$source" "$out/site"
echo "$out/site/index.html"
