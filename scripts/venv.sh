#!/bin/sh
# Create the virtual environment DIR with a Python of 3.11 or later: scripts/venv.sh DIR
# On Debian it installs python3-venv when that part of Python is missing. PYTHON=... picks another interpreter.
set -eu
dir=$1
here=$(dirname "$0")

fail() { echo "milepost: $1" >&2; exit 1; }
recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
create() { rm -rf "$dir" && "$python" -m venv "$dir" >/dev/null 2>&1 && "$dir/bin/python" -m pip --version >/dev/null 2>&1; }

python=
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
  if recent "$candidate"; then python=$candidate; break; fi
done
[ -n "$python" ] || fail "no Python of 3.11 or later found; install one, or name it: make PYTHON=/path/to/python3"

create && exit 0
# Debian keeps ensurepip, which venv needs, in a package of its own; its name has the version where that is not the default.
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
sh "$here/apt.sh" python3-venv
create && exit 0
sh "$here/apt.sh" "python$version-venv"
create && exit 0
rm -rf "$dir"
fail "'$python -m venv $dir' fails; run it by hand to see why"
