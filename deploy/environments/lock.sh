#!/usr/bin/env bash
# Writes the lock files anew: pinned versions and hashes of everything `make serve` and `make test` install.
# What is pinned stays, unless UPGRADE is set.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=deploy/environments
lock() { uv pip compile --quiet --generate-hashes --no-header --no-annotate --python-version 3.11 ${UPGRADE:+--upgrade} "$@"; }

lock --universal pyproject.toml --output-file $here/service.lock
lock --universal --group pyproject.toml:dev --constraint $here/service.lock --output-file $here/dev.lock
lock --python-platform x86_64-manylinux_2_35 --override $here/engine.overrides \
     $here/engine.in --output-file $here/engine.lock
lock --python-platform x86_64-manylinux_2_35 $here/clients.in --output-file $here/clients.lock
