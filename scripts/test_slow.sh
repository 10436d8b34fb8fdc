#!/bin/sh
# Run the tests marked slow: scripts/test_slow.sh PYTHON [PYTEST ARGUMENT...]
# Pytest ends with 5 when it ran none. That is a failure, unless no test file marks a test as slow.
set -u
python=$1
shift
"$python" -m pytest -m slow "$@"
code=$?
if [ "$code" -eq 5 ] && ! grep -rqE 'mark\.slow' --include='*.py' tests; then
  echo "make test-slow: no test is marked slow yet, so none was run."
  exit 0
fi
exit "$code"
