#!/usr/bin/env bash
# ansible-test sanity on a copy of the collection; VENV names another environment than .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$(realpath "${VENV:-.venv}")
bin=$venv/bin
cache=${XDG_CACHE_HOME:-$HOME/.cache}/turtles-kubevirt
home=$cache/home

# A home of its own keeps ansible-test's virtual environments out of the user's; pip's settings and cache are shared.
mkdir -p "$home/.ansible/test/cache" "$home/.config" "$HOME/.config/pip" "$HOME/.cache/pip" "$home/.cache"
ln -sfn "$HOME/.config/pip" "$home/.config/pip"
ln -sfn "$HOME/.cache/pip" "$home/.cache/pip"

# ansible-test downloads get-pip from a host of its own. Python brings a pip, which can get the version asked for from
# the package index like everything else.
version=$("$bin/python" - <<'PYTHON'
import re
from pathlib import Path

import ansible_test

source = Path(ansible_test.__file__).parent / "_internal" / "python_requirements.py"
print(re.search(r"pip='([\d.]+)'", source.read_text()).group(1).replace(".", "_"))
PYTHON
)
cat >"$home/.ansible/test/cache/get_pip_$version.py" <<'PYTHON'
"""Stands in for get-pip.py: the same options, with the pip that Python brings."""
import subprocess
import sys

subprocess.check_call([sys.executable, "-m", "ensurepip", "--default-pip"], stdout=subprocess.DEVNULL)
wanted = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", *wanted]))
PYTHON

# The copy is the user's, not the checkout's: one run at a time.
exec 9>"$cache/sanity.lock"
flock 9

cd "$(scripts/copy-collection.sh "$cache/sanity")"
export HOME=$home PATH=$bin:$PATH
unset XDG_CACHE_HOME
python=$("$bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
exec ansible-test sanity --venv --python "$python" --color no "$@"
