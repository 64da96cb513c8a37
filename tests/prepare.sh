#!/usr/bin/env bash
# Makes this machine ready for `make run`, `make test`, `make lint` and `make bench`: installs the Debian packages that
# are missing, and .venv with a supported Python and this checkout in it. Does nothing where all is there already.
#
#   tests/prepare.sh [EXTRA,…] [PROGRAM…]
#
# EXTRA: an optional dependency group of pyproject.toml, such as test or lint. PROGRAM: one that is wanted besides, from
# the Debian package of the same name; clamd:clamav-daemon names another package.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=${1:-}
programs=("${@:2}")
venv=.venv
export PATH="$PATH:/usr/sbin:/sbin"

say() { printf 'prepare: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

supported() { "$1" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

# PYTHON names the one to use; else the distribution's comes first: services run on it, and it is built for speed (one
# from elsewhere on the PATH, built without profile-guided optimization, takes a fifth more time).
find_python() {
  local candidate
  for candidate in ${PYTHON:-/usr/bin/python3 python3 python3.13 python3.12 python3.11}; do
    if command -v "$candidate" >/dev/null && supported "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
}

missing_packages() {
  local header program
  [ -x /usr/sbin/postfix ] || echo postfix
  [ -e /usr/include/libmilter/mfapi.h ] || echo libmilter-dev
  command -v gcc >/dev/null || echo gcc
  [ -e /usr/include/stdio.h ] || echo libc6-dev
  command -v openssl >/dev/null || echo openssl
  for program in "${programs[@]}"; do
    command -v "${program%%:*}" >/dev/null || echo "${program#*:}"
  done
  if [ -n "$python" ]; then
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
    [ -e "$header" ] || echo python3-dev
  else
    printf '%s\n' python3 python3-venv python3-dev
  fi
}

install_packages() {
  local sudo=()
  command -v apt-get >/dev/null ||
    fail "please install what these Debian packages hold: $* (only Debian and Ubuntu are done for you)"
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "please install, as root: apt-get install $*"
    sudo=(sudo)
  fi
  say "installing Debian packages: $*"
  # The package must not set up and start a mail server of its own: we bring our own configuration.
  if [[ " $* " == *" postfix "* ]] && command -v debconf-set-selections >/dev/null; then
    echo "postfix postfix/main_mailer_type select No configuration" | "${sudo[@]}" debconf-set-selections
  fi
  local install=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends)
  "${install[@]}" "$@" >/dev/null 2>&1 && return
  say "trying again with fresh package lists"
  "${sudo[@]}" apt-get update -qq
  "${install[@]}" "$@" >/dev/null
}

refuse_python() {
  fail "Elemta needs Python 3.11, 3.12 or 3.13, and here is $(python3 --version 2>&1); Debian 12 and 13 and Ubuntu 24.04 have one"
}

python=$(find_python)
if [ -z "$python" ] && command -v python3 >/dev/null; then refuse_python; fi
mapfile -t missing < <(missing_packages)
if [ "${#missing[@]}" -gt 0 ]; then
  install_packages "${missing[@]}"
  python=$(find_python)
fi
[ -n "$python" ] || refuse_python

if [ -e "$venv" ] && ! { [ -x "$venv/bin/python" ] && supported "$venv/bin/python"; }; then
  say "$venv has an unsupported Python: making it anew"
  rm -rf "$venv"
fi
[ -e "$venv" ] || { say "making $venv with $("$python" --version)"; "$python" -m venv "$venv"; }

# What is installed is noted in the environment, so that pip runs only when pyproject.toml or the wish has changed.
wish="$(sha256sum <pyproject.toml) $PWD"
for extra in ${extras//,/ } ""; do
  note="$venv/elemta-installed${extra:+-$extra}"
  if [ ! -e "$note" ] || [ "$(cat "$note")" != "$wish" ]; then
    say "installing Elemta${extras:+ with $extras} into $venv"
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check --editable ".${extras:+[$extras]}"
    for each in ${extras//,/ } ""; do
      echo "$wish" >"$venv/elemta-installed${each:+-$each}"
    done
    break
  fi
done
