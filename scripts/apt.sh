#!/bin/sh
# Install Debian packages, as root or through sudo: scripts/apt.sh PACKAGE...
# Says what it does in one line, and what to do by hand in one line when it cannot.
set -eu

fail() { echo "milepost: $1" >&2; exit 1; }
command -v apt-get >/dev/null 2>&1 || fail "needed and not installed: $*. There is no apt-get here; install it by other means."

sudo=
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    sudo="sudo"
  else
    fail "needed and not installed: $*. Run as root: apt-get install $*"
  fi
fi

echo "Installing with apt-get: $*"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# A new server package of PostgreSQL would create a cluster and start it, if the machine has none.
clusters=/etc/postgresql-common/createcluster.d
case " $*" in
*" postgresql-"*)
  [ -e "$clusters/milepost.conf" ] || { $sudo mkdir -p "$clusters" &&
    echo "create_main_cluster = false" | $sudo tee "$clusters/milepost.conf" >/dev/null; }
  ;;
esac
apt() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 "$@" </dev/null >>"$log" 2>&1; }
# The package lists may be absent (a fresh image) or old, and are only then worth the time.
apt install -y --no-install-recommends "$@" ||
  { apt update && apt install -y --no-install-recommends "$@"; } ||
  { tail -n 5 "$log" >&2; fail "apt-get could not install: $*"; }
