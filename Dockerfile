# Sluice in one image; what a container does is its command: run (all roles), run --role web, migrate, check ...
# Bookworm, because its pg_dump is the one of postgres:15: a newer one writes dumps that a server of that age refuses.
FROM python:3.11-slim-bookworm

RUN apt-get update \
 && apt-get install --yes --no-install-recommends postgresql-client \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/sluice sluice \
 && install --directory --owner=sluice --group=sluice --mode=0750 /var/lib/sluice

WORKDIR /opt/sluice
COPY requirements.txt ./
RUN python -m venv .venv \
 && .venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt

COPY LICENSE config.yaml demo_day.yaml ./
COPY app.py app_channels.py bot.py bot_models.py bot_tools.py checks.py demo_day.py domain.py serve.py settings.py ./
COPY channels channels
COPY nlu nlu
COPY router router
COPY storage storage
COPY web web
# The default model is part of the image: read-only, and the same in every container.
RUN .venv/bin/python bot.py train --default \
 && .venv/bin/python -m compileall -q -x '/\.venv/' .

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# 0.0.0.0 is the container's own network; which of it the world sees is decided where ports are published.
ENV SLUICE_STATE_DIR=/var/lib/sluice SLUICE_WEB__HOST=0.0.0.0 SLUICE_WEB__PORT=8080
USER sluice
VOLUME /var/lib/sluice
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
  CMD [".venv/bin/python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['SLUICE_WEB__PORT']}/readyz\", timeout=4)"]
ENTRYPOINT [".venv/bin/python", "bot.py"]
CMD ["run"]
