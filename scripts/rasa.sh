#!/usr/bin/env bash
# A Rasa server in an environment of its own, trained from nlu/data. Rasa 3.6 needs Python 3.8 to 3.10 and pins libraries
# that Sluice has newer, so the two never share an environment; they speak over HTTP.
#   scripts/rasa.sh           makes the environment, trains if the data is newer than the model, and serves
#   scripts/rasa.sh install   makes the environment only
#   SLUICE_RASA_PYTHON  the Python to use (else python3.10 on PATH, among pyenv's versions, or by uv)
#   SLUICE_RASA_PORT    where it listens, default 5005, on this machine only
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-rasa
version=3.6.21
export RASA_TELEMETRY_ENABLED=false

find_python() {
  if [ -n "${SLUICE_RASA_PYTHON:-}" ]; then echo "$SLUICE_RASA_PYTHON"; return; fi
  # It is run, and not only looked for: a shim of pyenv is on PATH also where no such Python is active.
  if python3.10 -c 'pass' 2>/dev/null; then command -v python3.10; return; fi
  local each
  for each in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10.*/bin/python3.10; do
    if [ -x "$each" ]; then echo "$each"; return; fi
  done
  if command -v uv >/dev/null && uv python find 3.10 2>/dev/null; then return; fi
  echo "Rasa needs Python 3.10, and none was found on PATH, among pyenv's versions or by uv." >&2
  echo "Get one (pyenv install 3.10, or uv python install 3.10), or name it: SLUICE_RASA_PYTHON=/path/to/python3.10" >&2
  return 1
}

install() {
  if [ -e "$venv/.installed-$version" ]; then return; fi
  local python
  python=$(find_python) || exit 1
  "$python" -c 'import sys; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, 10))' || {
    echo "Rasa needs Python 3.8 to 3.10. $python is: $("$python" --version 2>&1 || true)" >&2; exit 1; }
  "$python" -m venv "$venv"
  # setuptools: Rasa imports pkg_resources, which newer ones no longer have.
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "rasa==$version" "setuptools<81"
  touch "$venv/.installed-$version"
}

train() {
  local out=nlu/model/rasa part
  if [ -e "$out/sluice.tar.gz" ] && [ -z "$(find nlu/rasa_config.yml nlu/data/zh nlu/data/en nlu/data/mixed \
      -type f -newer "$out/sluice.tar.gz" -print -quit)" ]; then return; fi
  # Rasa takes one folder; the development and test sets beside the languages are not for training.
  mkdir -p "$out/data"
  for part in zh en mixed; do ln -sfn "$PWD/nlu/data/$part" "$out/data/$part"; done
  "$venv/bin/rasa" train nlu --config nlu/rasa_config.yml --nlu "$out/data" --out "$out" --fixed-model-name sluice
  touch "$out/sluice.tar.gz" # also where Rasa found that nothing had to be trained anew
}

case "${1:-serve}" in
  install) install ;;
  serve)
    install
    train
    exec "$venv/bin/rasa" run --enable-api --model nlu/model/rasa --interface 127.0.0.1 --port "${SLUICE_RASA_PORT:-5005}"
    ;;
  *) echo "use: $0 [install]" >&2; exit 2 ;;
esac
