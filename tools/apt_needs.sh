#!/usr/bin/env bash
# Names the Debian packages that the tests need and this machine lacks. Root with CI=true or APT=1
# also installs them, and keeps the services that they bring from starting.
set -euo pipefail

PACKAGES=(faketime git iproute2 nftables openssh-client openssl postgresql)

command -v dpkg-query >/dev/null || exit 0 # not Debian: the tests name what they miss themselves

missing=()
for package in "${PACKAGES[@]}"; do
  status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $status == installed ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

if [[ $EUID != 0 || (${CI:-} != true && ${APT:-} != 1) ]]; then
  printf '· missing for some tests: %s\n  sudo apt-get install %s\n' "${missing[*]}" "${missing[*]}"
  exit 0
fi

# Exit status 101 of policy-rc.d forbids a package's service to start; a policy already there stays.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

printf '· installing %s\n' "${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -o DPkg::Lock::Timeout=120 update </dev/null
apt-get -qq -o DPkg::Lock::Timeout=120 install --yes --no-install-recommends "${missing[@]}" \
  </dev/null >/dev/null
