#!/bin/sh
# A CA and a server certificate for development, without OpenSSL: DIR/ca.pem, server.pem, server-key.pem (0600). What is
# there and good for another month is kept. For localhost and the service's names in Compose; `--name` says others.
#
#   devstack/generate-dev-certs.sh [DIR] [--name HOST]...      DIR: .data/certs
set -eu
cd "$(dirname "$0")/.."
case ${1:-} in '' | -*) set -- .data/certs "$@" ;; esac
exec .venv/bin/smtp-proxy certs selfsigned "$@"
