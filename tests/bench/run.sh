#!/usr/bin/env bash
# `make bench`: every bench in turn; fails if one of them does.
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/prepare.sh test postgrey clamd:clamav-daemon unbound opendkim opendmarc rspamd
failed=()
for bench in tests/bench/bench_*.py; do
  printf '\n== %s\n' "$(basename "$bench" .py)"
  PYTHONPATH=tests .venv/bin/python "$bench" || failed+=("$bench")
done
if [ "${#failed[@]}" -gt 0 ]; then
  printf '\nfailed: %s\n' "${failed[*]}" >&2
  exit 1
fi
