#!/usr/bin/env bash
# Makes what the broker needs on Fly.io: two apps, a volume, secrets. Run it from
# the project's folder; run it again at any time, it only adds what is missing.
#
#   DATABASE_URL=postgres://... deploy/fly/setup.sh
#
# BROKER_APP, VALKEY_APP, FLY_ORG and REGION override what stands below. With
# another BROKER_APP, change `app` and BROKER_WS_URL in fly.toml too.
set -euo pipefail
cd "$(dirname "$0")/../.."

broker_app="${BROKER_APP:-claudemesh-broker}"
valkey_app="${VALKEY_APP:-claudemesh-valkey}"
org="${FLY_ORG:-personal}"
region="${REGION:-fra}"

say() { printf '%s\n' "$*"; }
fail() {
  printf 'setup.sh: %s\n' "$*" >&2
  exit 1
}

command -v fly >/dev/null || fail "the command fly is missing; see https://fly.io/docs/flyctl/install/"
command -v openssl >/dev/null || fail "the command openssl is missing; it makes the passwords"
fly auth whoami >/dev/null || fail "not logged in; run: fly auth login"

# Whether a name is in the first column of a listing. Secrets that are staged
# bear a * before it, those that only some machines have a !. Reads to the end:
# who is cut off while writing fails, and with it the pipe.
listed() {
  awk -v name="$1" '
    { first = ($1 == "*" || $1 == "!") ? $2 : $1 }
    first == name { found = 1 }
    END { exit !found }'
}

has_secret() { fly secrets list --app "$1" | listed "$2"; }

# Through standard input: arguments can be read by others on this machine.
set_secret() { printf '%s=%s\n' "$2" "$3" | fly secrets import --stage --app "$1"; }

make_app() {
  if fly apps list | listed "$1"; then
    say "app $1: there"
  else
    fly apps create "$1" --org "$org"
  fi
}

make_app "$valkey_app"
make_app "$broker_app"

if fly volumes list --app "$valkey_app" | awk '/valkey_data/ { found = 1 } END { exit !found }'; then
  say "volume valkey_data: there"
else
  fly volumes create valkey_data --app "$valkey_app" --region "$region" --size 1 --yes
fi

# A password cannot be read back: unless both apps have it, both get a new one.
if has_secret "$valkey_app" VALKEY_PASSWORD && has_secret "$broker_app" REDIS_URL; then
  say "password of Valkey: there"
else
  password="$(openssl rand -hex 32)"
  set_secret "$valkey_app" VALKEY_PASSWORD "$password"
  set_secret "$broker_app" REDIS_URL "redis://:$password@$valkey_app.internal:6379"
fi

if has_secret "$broker_app" HOOK_TOKEN; then
  say "HOOK_TOKEN: there"
else
  set_secret "$broker_app" HOOK_TOKEN "$(openssl rand -hex 32)"
fi

if has_secret "$broker_app" DATABASE_URL; then
  say "DATABASE_URL: there"
elif [ -n "${DATABASE_URL:-}" ]; then
  set_secret "$broker_app" DATABASE_URL "$DATABASE_URL"
else
  fail "the broker has no DATABASE_URL yet; make a database (fly mpg create) and run this again with DATABASE_URL=postgres://... set"
fi

say
say "All there. Next:"
say "  fly deploy --config deploy/fly/valkey.toml --app $valkey_app --ha=false"
say "  fly deploy --app $broker_app"
