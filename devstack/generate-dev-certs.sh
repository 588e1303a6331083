#!/bin/sh
# A CA and a server certificate for development, without OpenSSL: DIR/ca.pem, server.pem, server-key.pem (0600). What is
# there and good for another month is kept. For localhost and the service's names in Compose; `--name` says others.
#
#   devstack/generate-dev-certs.sh [DIR] [--name HOST]...      DIR: .data/certs of the checkout
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
case ${1:-} in '' | -*) set -- "$top/.data/certs" "$@" ;; esac
exec "$top"/.venv/bin/smtp-proxy certs selfsigned "$@"
