#!/usr/bin/env bash
# Makes .venv with ansible-core and what the collection needs; with --tests also the engine and the tools that judge the
# code, and the Debian packages that tests need. Names of further profiles in bindep.txt may follow (--tests bench).
# Needs nothing but a shell: on Debian it gets Python through apt. Does nothing when all is there.
# Packages come from an index, and root may be the one who runs them: only files whose hashes the lock files have
# (scripts/lock.sh) are installed.
set -euo pipefail
cd "$(dirname "$0")/.."
# Targets that run side by side come here one after another.
exec 9<.
flock 9
venv=.venv
python=${PYTHON:-python3}

say() { printf '==> %s\n' "$*"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "This needs root, and sudo isn't installed: $*" >&2
        exit 1
    fi
}

apt_install() {
    if ! command -v apt-get >/dev/null; then
        echo "Please install what Debian calls: $*" >&2
        exit 1
    fi
    say "apt-get install $*"
    as_root apt-get update -q=2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q=2 -y --no-install-recommends "$@" >/dev/null
}

good_python() {
    "$1" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Python packages come over TLS, and a minimal Debian knows no certificate authority.
if [ ! -e /etc/ssl/certs/ca-certificates.crt ] && command -v apt-get >/dev/null; then
    apt_install ca-certificates
fi
if [ ! -x $venv/bin/python ] || ! $venv/bin/python -c 'import pip' 2>/dev/null; then
    if ! good_python "$python"; then
        apt_install python3 python3-venv
        python=/usr/bin/python3
        if ! good_python $python; then
            echo "Python 3.11 or later is needed, but $python is $($python --version). Set PYTHON to another one." >&2
            exit 1
        fi
    fi
    say "making $venv with $("$python" --version)"
    rm -rf $venv
    "$python" -m venv $venv
fi

# A stamp names what was installed from; a change of a lock file installs again.
install() {
    local name=$1 sum lock
    shift
    sum=$(cat "$@" engine/pyproject.toml "$0" | sha256sum)
    if [ "$(cat "$venv/.installed-$name" 2>/dev/null)" != "$sum" ]; then
        for lock in "$@"; do
            say "pip install -r $lock"
            # Without build isolation: pip would fetch what builds a package by range, not by hash.
            $venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-build-isolation \
                -r "$lock"
        done
        if [ "$name" = tests ]; then
            say "pip install -e ./engine"
            $venv/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --no-index \
                -e ./engine
        fi
        echo "$sum" >"$venv/.installed-$name"
    fi
}

if [ "${1:-}" != --tests ]; then
    install run engine/requirements-install.lock requirements-venv.lock
else
    profiles=$(IFS='|'; echo "test${2:+|}${*:2}")
    missing=()
    while read -r package; do
        case $package in
            # There in another way on many machines.
            kubernetes-client) if command -v kubectl >/dev/null; then continue; fi ;;
        esac
        if [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
            missing+=("$package")
        fi
    done < <(sed -nE "s/^([a-z0-9.+-]*) \\[($profiles) .*/\1/p" bindep.txt)
    if [ ${#missing[@]} -gt 0 ]; then
        apt_install "${missing[@]}"
    fi
    install tests engine/requirements-install.lock requirements-test.lock
fi
