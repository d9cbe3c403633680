#!/usr/bin/env bash
# Installs Sitewarden as systemd services on Debian 12 or Raspberry Pi OS. May be run again: it upgrades and repairs.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$HERE")
PREFIX=/opt/sitewarden # the units name it

usage() {
  cat <<'TEXT'
Usage: systemd/install.sh [edge|cloud|both] [OPTIONS]

Installs the gateway (edge, the default), the cloud service, or both as systemd services:
  users sitewarden and sitewarden-cloud, the program in /opt/sitewarden, units, udev rules, and a first configuration
  in /etc/sitewarden or /etc/sitewarden-cloud where there is none. Existing configuration and data are never touched.

Options:
  --wheel FILE     the wheel to install [default: the newest dist/sitewarden-*.whl; `make wheel` builds it]
  --wheelhouse DIR take every dependency from this folder, not from the network. Fill it on a machine of the same kind:
                   pip download --require-hashes -r requirements.lock -d DIR && pip download setuptools wheel -d DIR
  --enable         also start the services now and at every boot
  --dry-run        only print what would be done
  -h, --help       this text
TEXT
}

fail() {
  printf 'install.sh: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf '            %s\n' "$line" >&2; done
  exit 1
}
say() { printf '== %s\n' "$*"; }
run() {
  if [ "$dry_run" = yes ]; then
    printf '+ %s\n' "$(printf '%q ' "$@")"
  else
    "$@"
  fi
}

what=edge wheel='' wheelhouse='' enable=no dry_run=no
while [ $# -gt 0 ]; do
  case $1 in
    edge | cloud | both) what=$1 ;;
    --wheel | --wheelhouse)
      [ $# -ge 2 ] || fail "$1 needs a value"
      if [ "$1" = --wheel ]; then wheel=$2; else wheelhouse=$2; fi
      shift
      ;;
    --enable) enable=yes ;;
    --dry-run) dry_run=yes ;;
    -h | --help)
      usage
      exit 0
      ;;
    *) fail "unknown argument: $1" "install.sh --help lists them" ;;
  esac
  shift
done
services=(edge cloud)
[ "$what" = both ] || services=("$what")

check_machine() {
  if [ "$dry_run" = no ] && [ "$(id -u)" -ne 0 ]; then
    fail "must run as root: it makes users, units and $PREFIX." "sudo systemd/install.sh $what   (--dry-run shows what it would do)"
  fi
  for program in systemctl systemd-sysusers systemd-tmpfiles; do
    command -v "$program" >/dev/null || [ "$dry_run" = yes ] || fail "$program is missing: this machine does not run systemd."
  done
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "Python 3.11 or newer is missing." "apt install python3 python3-venv"
  python3 -c 'import ensurepip, venv' 2>/dev/null || fail "Python cannot make virtual environments." "apt install python3-venv"
}

find_wheel() {
  if [ -z "$wheel" ]; then
    wheel=$(find "$ROOT/dist" -maxdepth 1 -name 'sitewarden-*.whl' -printf '%T@ %p\n' 2>/dev/null |
      sort -n | tail -n 1 | cut -d' ' -f2-) || wheel=''
    [ -n "$wheel" ] || [ "$dry_run" = yes ] || fail "there is no wheel in $ROOT/dist." "Build it as a normal user: make wheel"
    wheel=${wheel:-$ROOT/dist/sitewarden-VERSION.whl}
  fi
  [ -e "$wheel" ] || [ "$dry_run" = yes ] || fail "$wheel is missing"
}

install_users() {
  say "users and folders"
  run install -D -m 0644 "$HERE/sysusers.conf" /usr/lib/sysusers.d/sitewarden.conf
  run install -D -m 0644 "$HERE/tmpfiles.conf" /usr/lib/tmpfiles.d/sitewarden.conf
  run systemd-sysusers /usr/lib/sysusers.d/sitewarden.conf
  run systemd-tmpfiles --create /usr/lib/tmpfiles.d/sitewarden.conf
}

install_program() {
  say "program in $PREFIX"
  if [ -e "$PREFIX/.busy" ] || { [ -e "$PREFIX" ] && ! "$PREFIX/bin/python" -c 'import pip' 2>/dev/null; }; then
    say "$PREFIX is half-made: making it anew"
    run rm -rf "$PREFIX"
  fi
  run mkdir -p "$PREFIX"
  run touch "$PREFIX/.busy"
  [ -x "$PREFIX/bin/python" ] || run python3 -m venv "$PREFIX"
  local source=()
  [ -z "$wheelhouse" ] || source=(--no-index --find-links "$wheelhouse")
  run env PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore "$PREFIX/bin/python" -m pip install --quiet --prefer-binary \
    --require-hashes "${source[@]}" -r "$ROOT/requirements.lock"
  run env PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore "$PREFIX/bin/python" -m pip install --quiet --no-deps --no-index \
    --force-reinstall "$wheel"
  run "$PREFIX/bin/python" -m compileall -q "$PREFIX/lib"
  run chmod -R u=rwX,go=rX "$PREFIX"
  run rm -f "$PREFIX/.busy"
  run ln -sfn "$PREFIX/bin/sitewarden" /usr/local/bin/sitewarden
}

# first_config TARGET GROUP SOURCE: never overwrites
first_config() {
  if [ -e "$1" ]; then
    echo "$1 is there already: kept"
  else
    run install -m 0640 -g "$2" "$3" "$1"
  fi
}

install_configuration() {
  say "configuration"
  for service in "${services[@]}"; do
    if [ "$service" = edge ]; then
      first_config /etc/sitewarden/site.toml sitewarden "$ROOT/config/site.toml"
      first_config /etc/sitewarden/people.csv sitewarden "$ROOT/config/people.csv"
      run install -d -m 0750 -g sitewarden /etc/sitewarden/profiles
      first_config /etc/sitewarden/profiles/stack_light.toml sitewarden "$ROOT/config/profiles/stack_light.toml"
    else
      first_config /etc/sitewarden-cloud/cloud.toml sitewarden-cloud "$ROOT/config/cloud.toml"
      first_config /etc/sitewarden-cloud/baseline.toml sitewarden-cloud "$ROOT/config/baseline.toml"
      first_config /etc/sitewarden-cloud/people.csv sitewarden-cloud "$ROOT/config/people.csv"
    fi
  done
}

install_units() {
  say "units"
  for service in "${services[@]}"; do
    run install -D -m 0644 "$HERE/sitewarden-$service.service" "/etc/systemd/system/sitewarden-$service.service"
  done
  if [[ " ${services[*]} " == *" edge "* ]]; then
    run install -D -m 0644 "$HERE/60-sitewarden.rules" /etc/udev/rules.d/60-sitewarden.rules
  fi
  if [ "$dry_run" = no ] && [ ! -d /run/systemd/system ]; then
    echo "systemd does not run here (an image being made?): nothing is started; enable the units with systemctl --root"
    return
  fi
  if [ "$dry_run" = yes ] || command -v udevadm >/dev/null; then run udevadm control --reload || true; fi
  run systemctl daemon-reload
  for service in "${services[@]}"; do
    if [ "$enable" = yes ]; then run systemctl enable "sitewarden-$service.service"; fi
    # An upgrade takes effect now; what does not run is started with --enable only.
    if [ "$enable" = yes ]; then
      run systemctl restart "sitewarden-$service.service"
    else
      run systemctl try-restart "sitewarden-$service.service"
    fi
  done
}

next_steps() {
  say "next"
  for service in "${services[@]}"; do
    if [ "$service" = edge ]; then
      cat <<'TEXT'
 1. edit /etc/sitewarden/site.toml and people.csv, then: sudo -u sitewarden sitewarden check /etc/sitewarden/site.toml
 2. the key for headquarters:           sudo -u sitewarden sitewarden key --data /var/lib/sitewarden
 3. a PIN for everyone who signs in:    sudo -u sitewarden sitewarden pin set PERSON --secrets /var/lib/sitewarden/secrets.db
 4. start, now and at every boot:       systemctl enable --now sitewarden-edge
 5. its log:                            journalctl -u sitewarden-edge -f
TEXT
    else
      cat <<'TEXT'
 1. edit /etc/sitewarden-cloud/cloud.toml (one [[gateway]] with its public key for each gateway) and people.csv
 2. start, now and at every boot:       systemctl enable --now sitewarden-cloud
 3. a PIN for everyone who signs in:    sudo -u sitewarden-cloud sitewarden pin set PERSON --secrets /var/lib/sitewarden-cloud/secrets.db
 4. its log:                            journalctl -u sitewarden-cloud -f
TEXT
    fi
  done
}

check_machine
find_wheel
install_users
install_program
install_configuration
install_units
next_steps
