#!/usr/bin/env bash
# Tests the collection with other releases of ansible-core than .venv has: sanity, and what tests/unit has. Each gets an
# environment in ~/.cache and the newest Python of those here that it runs on.
#
#     scripts/matrix.sh [VERSION...] [-- OPTION...]   the versions that tests/matrix has a lock file for, or some of them;
#                                                     with options for pytest
#     scripts/matrix.sh --python VERSION              the oldest Python that ansible-core VERSION runs on
#
# SANITY=no leaves ansible-test out, SANITY="2.17" runs it with these versions only.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/turtles-kubevirt/matrix

# Controllers' Pythons, oldest and newest, by Ansible's support matrix. The engine and the tests need 3.11.
pythons() {
    case $1 in
        2.17) echo 3.11 3.12 ;;
        2.18) echo 3.11 3.13 ;;
        2.20 | 2.21) echo 3.12 3.14 ;;
        *) echo "Which Pythons ansible-core $1 runs on is to be added to $0." >&2; exit 1 ;;
    esac
}

if [ "${1:-}" = --python ]; then
    pythons "$2" | cut -d ' ' -f 1
    exit
fi

# Pythons that pyenv has aren't on the PATH under their names.
PATH=$PATH$(printf ':%s' "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin)

find_python() {
    local oldest newest minor
    read -r oldest newest < <(pythons "$1")
    for ((minor = ${newest#3.}; minor >= ${oldest#3.}; minor--)); do
        if "python3.$minor" -c 'import ensurepip, venv' 2>/dev/null; then
            command -v "python3.$minor"
            return
        fi
    done
    return 1
}

# Makes an environment with everything as locked for .venv, but what the version's own lock file has.
install() {
    local venv=$1 lock=$2 python=$3 others=$1/others.lock sum file
    sum=$(cat "$lock" engine/requirements-install.lock requirements-test.lock "$0" | sha256sum)
    if [ "$(cat "$venv/.installed" 2>/dev/null)" != "$sum" ]; then
        echo "==> making $venv"
        rm -rf "$venv"
        "$python" -m venv "$venv"
        awk -v names="$(sed -nE 's/^([a-z0-9.-]+)==.*/\1/p' "$lock" | paste -sd ' ')" '
            BEGIN { split(names, list, " "); for (i in list) ours[list[i]] }
            /^[a-z0-9]/ { split($0, name, "=="); skip = name[1] in ours }
            !skip' requirements-test.lock >"$others"
        for file in engine/requirements-install.lock "$lock" "$others"; do
            "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-build-isolation \
                --no-deps -r "$file"
        done
        echo "$sum" >"$venv/.installed"
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --no-index \
        -e ./engine
}

if [ "${1:-}" = --one ]; then
    version=$2 python=$3
    venv=$cache/$version-${python##*/}
    install "$venv" "tests/matrix/$version.lock" "$python"
    case " ${SANITY:-$version} " in
        *" $version "* | " yes ") VENV=$venv scripts/sanity.sh ;;
    esac
    PATH=$venv/bin:$PATH exec "$venv/bin/python" -m pytest -p no:cacheprovider -n auto --dist loadfile \
        tests/unit/plugins "${@:4}"
fi

versions=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    versions+=("$1")
    shift
done
options=("${@:2}")
if [ ${#versions[@]} = 0 ]; then
    mapfile -t versions < <(basename --suffix .lock tests/matrix/*.lock)
fi
report=()
status=0
for version in "${versions[@]}"; do
    echo "=== ansible-core $version"
    if ! python=$(find_python "$version"); then
        report+=("not run   $version: needs one of the Pythons $(pythons "$version" | tr ' ' -)")
        continue
    fi
    outcome=passed
    "$0" --one "$version" "$python" "${options[@]}" || outcome=failed status=1
    report+=("$outcome    $version with ${python##*/}")
done
echo "=== ansible-core"
printf '%s\n' "${report[@]}"
exit $status
