#!/bin/sh
# Prepares a machine to build, run and test Weir. Safe to run again; quick when everything is there.
#
#   qemu/setup.sh            installs what is missing (apt on Debian and Ubuntu; elsewhere it names the packages)
#   qemu/setup.sh --check    only says what is missing; exit code 1 when something is
#
# It never installs a kernel: the one that the tests boot as a client VM is unpacked into target/client/.
set -eu

# Each line: command that tells whether it is there, package on Debian and Ubuntu.
tools='
qemu-system-x86_64 qemu-system-x86
ip iproute2
nft nftables
iperf3 iperf3
curl curl
ping iputils-ping
dig bind9-dnsutils
dnsmasq dnsmasq-base
traceroute traceroute
busybox busybox-static
ethtool ethtool
gcc gcc
cpio cpio
xz xz-utils
modprobe kmod
python3 python3
'
# Packages without a command of their own, with a file that tells.
files='
/usr/include/stdlib.h libc6-dev
/etc/ssl/certs/ca-certificates.crt ca-certificates
'
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
client=$root/target/client
PATH=$PATH:/usr/sbin:/sbin:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin
only_check=false
failed=false

say() { printf 'setup: %s\n' "$*"; }
lack() { say "$*"; failed=true; }
has() { command -v "$1" >/dev/null 2>&1; }

case ${1-} in
'') ;;
--check) only_check=true ;;
*)
    sed -n '2,7s/^# \{0,1\}//p' "$0"
    [ "$1" = --help ] || [ "$1" = -h ] || exit 2
    exit 0
    ;;
esac

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif has sudo; then
        sudo "$@"
    else
        say "this needs root, and there is no sudo; as root: $*"
        return 1
    fi
}

# Package lists are fetched at most once, and only when something is to be installed.
apt_updated=false
apt_update() {
    if ! $apt_updated; then
        say "apt-get update"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update
        apt_updated=true
    fi
}

apt_install() {
    apt_update
    say "apt-get install $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@" >/dev/null
}

missing_packages() {
    echo "$tools" | while read -r command package; do
        [ -z "$command" ] || has "$command" || echo "$package"
    done
    echo "$files" | while read -r file package; do
        [ -z "$file" ] || [ -e "$file" ] || echo "$package"
    done
}

install_packages() {
    # One line of words.
    missing=$(missing_packages | tr '\n' ' ')
    missing=${missing% }
    if [ -z "$missing" ]; then
        say "tools: all there"
    elif $only_check || ! has apt-get; then
        lack "missing (by their names on Debian): $missing"
        has apt-get || say "install these with your distribution's package manager; QEMU has to be 7.2 or newer"
    else
        # shellcheck disable=SC2086 # words on purpose
        apt_install $missing || lack "not installed: $missing"
    fi
}

# True when version $1 is at least $2, both as numbers with dots.
at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

check_qemu() {
    has qemu-system-x86_64 || return 0
    version=$(qemu-system-x86_64 --version | sed -n 's/.*version \([0-9.]*\).*/\1/p' | head -n 1)
    at_least "$version" 7.2 || lack "QEMU is $version; 7.2 or newer is needed"
}

# Rust: the version that Cargo.toml asks for.
check_rust() {
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
    found=$(cargo --version 2>/dev/null | cut -d ' ' -f 2) || true
    if [ -n "$found" ] && at_least "$found" "$wanted"; then
        say "Rust: cargo $found"
        return
    fi
    $only_check || install_rust
    found=$(cargo --version 2>/dev/null | cut -d ' ' -f 2) || true
    if [ -z "$found" ] || ! at_least "$found" "$wanted"; then
        lack "Rust $wanted or newer is needed, found ${found:-none}; with rustup (https://rustup.rs):"
        say "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal"
    fi
}

# From the distribution, where it packages one that is new enough.
install_rust() {
    has apt-get || return 0
    apt_update
    for suffix in '' -1.91 -1.92 -1.93 -1.94 -1.95; do
        candidate=$(apt-cache policy "cargo$suffix" 2>/dev/null | sed -n 's/^ *Candidate: //p' | sed 's/^[0-9]*://; s/[^0-9.].*//')
        if [ -n "$candidate" ] && at_least "$candidate" "$wanted"; then
            apt_install "cargo$suffix" "rustc$suffix" || return 0
            has cargo || say "the package has put cargo in /usr/lib/rust${suffix}/bin; add that to PATH"
            return
        fi
    done
}

# The kernel of the tests' client VM: downloaded, never installed.
client_kernel() {
    if ls "$client"/boot/vmlinuz-* >/dev/null 2>&1 && [ -e "$client/.complete" ]; then
        say "client kernel: $(basename "$client"/boot/vmlinuz-*)"
        return
    fi
    if $only_check; then
        lack "no client kernel in target/client"
        return
    fi
    if ! has apt-get; then
        say "no apt: the client kernel is skipped, and with it the tests that boot a Linux client VM"
        return
    fi
    apt_update
    # What the name without a version stands for today; on Ubuntu the small kernel has another name.
    for name in linux-image-cloud-amd64 linux-image-kvm linux-image-virtual; do
        kernel=$(apt-cache depends --no-recommends --no-suggests "$name" 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
        [ -z "$kernel" ] || break
    done
    if [ -z "$kernel" ]; then
        say "this distribution has no small kernel package: the tests that boot a Linux client VM are skipped"
        return
    fi
    fetch_kernel "$kernel" || lack "the client kernel $kernel could not be fetched"
}

fetch_kernel() {
    say "client kernel: $1, into target/client"
    rm -rf "$client"
    mkdir -p "$client/.download"
    # Ubuntu has the modules in a package of their own.
    modules=$(apt-cache depends --no-recommends --no-suggests "$1" 2>/dev/null | sed -n 's/.*Depends: \(linux-modules-[0-9].*\)/\1/p' | head -n 1)
    # shellcheck disable=SC2086 # no modules package is no word
    (cd "$client/.download" && apt-get -qq -o APT::Sandbox::User=root download "$1" $modules) || return 1
    for package in "$client"/.download/*.deb; do
        dpkg-deb -x "$package" "$client" || return 1
    done
    rm -rf "$client/.download" "$client/usr/share"
    [ -d "$client/lib/modules" ] || ln -s usr/lib "$client/lib"
    version=$(basename "$client"/lib/modules/*)
    depmod -b "$client" "$version" || return 1
    touch "$client/.complete"
}

install_packages
check_qemu
check_rust
client_kernel
if $failed; then
    say "something is missing; see above"
    exit 1
fi
if $only_check; then
    say "everything is there"
else
    say "done; try: cargo run"
fi
