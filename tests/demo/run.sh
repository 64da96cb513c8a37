#!/usr/bin/env bash
# `make run`: the demonstration, as root, since Postfix's master process needs to be.
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/prepare.sh
command=(env PYTHONPATH=tests PYTHONDONTWRITEBYTECODE=1 .venv/bin/python tests/demo/demo.py "$@")
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "run: Postfix must be started as root, and there is no sudo here" >&2; exit 1; }
  echo "run: asking sudo, since Postfix must be started as root" >&2
  command=(sudo "${command[@]}")
fi
exec "${command[@]}"
