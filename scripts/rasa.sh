#!/usr/bin/env bash
# A Rasa server in an environment of its own, trained from nlu/data. Rasa 3.6 needs Python 3.8 to 3.10 and pins libraries
# that Sluice has newer, so the two never share an environment; they speak over HTTP.
#   SLUICE_RASA_PYTHON  the Python to use (else python3.10 on PATH, among pyenv's versions, or by uv)
#   SLUICE_RASA_PORT    where it listens, default 5005, on this machine only
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-rasa
version=3.6.21

find_python() {
  if [ -n "${SLUICE_RASA_PYTHON:-}" ]; then echo "$SLUICE_RASA_PYTHON"; return; fi
  if python3.10 -c 'pass' 2>/dev/null; then command -v python3.10; return; fi
  local each
  for each in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10.*/bin/python3.10; do
    if [ -x "$each" ]; then echo "$each"; return; fi
  done
  if command -v uv >/dev/null && uv python find 3.10 2>/dev/null; then return; fi
  echo "Rasa needs Python 3.10, and none was found. Name one: SLUICE_RASA_PYTHON=/path/to/python3.10 make rasa" >&2
  exit 1
}

if [ ! -e "$venv/.installed-$version" ]; then
  python=$(find_python)
  "$python" -c 'import sys; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, 10))' || {
    echo "$python is $("$python" --version); Rasa needs 3.8 to 3.10." >&2; exit 1; }
  "$python" -m venv "$venv"
  # setuptools: Rasa imports pkg_resources, which newer ones no longer have.
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "rasa==$version" "setuptools<81"
  touch "$venv/.installed-$version"
fi

model=nlu/model/rasa
mkdir -p "$model"
if [ -z "$(find "$model" -name '*.tar.gz' -newer nlu/rasa/config.yml 2>/dev/null)" ]; then
  # Rasa takes one folder; the development set beside the two languages is not for training.
  mkdir -p "$model/data"
  ln -sfn "$PWD/nlu/data/zh" "$model/data/zh"
  ln -sfn "$PWD/nlu/data/en" "$model/data/en"
  "$venv/bin/rasa" train nlu --config nlu/rasa/config.yml --nlu "$model/data" --out "$model" --fixed-model-name sluice
fi
exec "$venv/bin/rasa" run --enable-api --model "$model" --interface 127.0.0.1 --port "${SLUICE_RASA_PORT:-5005}"
