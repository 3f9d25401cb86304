#!/bin/sh
# Runs on the host with the new root file system as its argument, once all packages are in. Values come from the
# environment, never from text put into this script.
set -eu
root=$1

chroot "$root" useradd --create-home --uid 1000 --shell /bin/bash agent
install -d -o 1000 -g 1000 "$root/workspace"
if [ -n "${FORKYARD_VENV:-}" ]; then
    chroot "$root" python3 -m venv "$FORKYARD_VENV"
    chroot "$root" python3 -m compileall -q "$FORKYARD_VENV" /usr/lib/python3 >/dev/null
fi
if [ -n "${FORKYARD_PIP:-}" ]; then
    # As the host reaches its package index, but for local wheels: those need not be there for the next build.
    # These two would win over PIP_CERT, and name files of the host's.
    unset PIP_FIND_LINKS REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
    bundle=${PIP_CERT:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}
    install -m 644 "$bundle" "$root/tmp/host-ca.crt"
    # Words, one a package: names and versions hold no blanks.
    # shellcheck disable=SC2086
    PIP_CERT=/tmp/host-ca.crt PIP_CONFIG_FILE=/dev/null chroot "$root" "$FORKYARD_VENV/bin/pip" install \
        --quiet --no-cache-dir --disable-pip-version-check $FORKYARD_PIP
    rm "$root/tmp/host-ca.crt"
fi
if [ -n "${FORKYARD_VENV:-}" ]; then
    chroot "$root" chown -R agent:agent "$FORKYARD_VENV"
fi
chroot "$root" dpkg-query --show --showformat '${Package}\t${Version}\n' >"$FORKYARD_PACKAGES"

# What belongs to this build and to no machine.
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/log/* "$root"/var/cache/ldconfig/*
rm -f "$root/etc/resolv.conf" "$root/etc/hostname"
: >"$root/etc/machine-id"
