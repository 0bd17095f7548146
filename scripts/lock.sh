#!/usr/bin/env bash
# Resolves pyproject.toml into the two locked files, with hashes and without any host's name. Needs `uv` on PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
flags=(--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --quiet "$@")
uv pip compile pyproject.toml --group train "${flags[@]}" -o requirements.txt
uv pip compile pyproject.toml --group train --group dev --constraint requirements.txt "${flags[@]}" -o requirements-dev.txt
uv pip compile --group encoder --constraint requirements.txt "${flags[@]}" -o requirements-encoder.txt
