#!/usr/bin/env bash
# `make run`: the demonstration, as root, since Postfix's master process needs to be.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
  echo "run: Postfix must be started as root, and there is no sudo here" >&2
  exit 1
fi
tests/prepare.sh
command=(env PYTHONPATH=tests PYTHONDONTWRITEBYTECODE=1 .venv/bin/python tests/demo/demo.py "$@")
if [ "$(id -u)" -ne 0 ]; then
  echo "run: asking sudo, since Postfix must be started as root" >&2
  command=(sudo "${command[@]}")
fi
exec "${command[@]}"
