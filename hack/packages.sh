#!/usr/bin/env bash
# Install the Debian packages that the lab needs and that are missing, and say
# which. With root or sudo; otherwise say what to do. Arguments are further
# programs that are needed: bgpd (FRR), nc and wget.
set -euo pipefail

declare -A package_of=(
	[bird]=bird2
	[birdc]=bird2
	[conntrack]=conntrack
	[curl]=curl
	[ip]=iproute2
	[iptables]=iptables
	[nft]=nftables
	[ping]=iputils-ping
	[tcpdump]=tcpdump
)
declare -A further=(
	[bgpd]=frr
	[nc]=netcat-openbsd
	[wget]=wget
)
for program in "$@"; do
	package_of[$program]=${further[$program]:?no package is known for it}
done
PATH=$PATH:/usr/sbin:/sbin:/usr/lib/frr

missing=()
for program in "${!package_of[@]}"; do
	command -v "$program" >/dev/null || missing+=("${package_of[$program]}")
done
[ ${#missing[@]} -eq 0 ] && exit 0
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

sudo=()
if [ "$(id -u)" -ne 0 ]; then
	sudo=(sudo)
	command -v sudo >/dev/null || sudo=()
fi
if ! command -v apt-get >/dev/null || { [ "$(id -u)" -ne 0 ] && [ ${#sudo[@]} -eq 0 ]; }; then
	echo "Missing packages: ${missing[*]}" >&2
	echo "Install them (on Debian or Ubuntu: apt-get install ${missing[*]}), then run this again." >&2
	exit 1
fi

echo "Installing Debian packages: ${missing[*]}"
# The lab starts its own daemons, in namespaces: an installation must not start
# any on this machine.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
	"${sudo[@]}" chmod 755 "$policy"
	trap '"${sudo[@]}" rm -f "$policy"' EXIT
fi
if ! { "${sudo[@]}" apt-get -q update && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"; }; then
	echo "apt-get failed. Install by hand: ${missing[*]}" >&2
	exit 1
fi
