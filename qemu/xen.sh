#!/bin/sh
# Fetches what the test under Xen boots (`tests/xen.rs`): Xen, a kernel and a RAM disk of Xen's tools, from Debian.
# Nothing is installed, everything goes into DIR. No root.
#
#   qemu/xen.sh DIR && WEIR_XEN=DIR cargo test -p tests --test xen
set -eu

if [ $# != 1 ]; then
    sed -n '2,5s/^# \{0,1\}//p' "$0"
    exit 2
fi
mkdir -p "$1"
cd "$1"
PATH=$PATH:/usr/sbin:/sbin
version=$(apt-cache depends xen-system-amd64 | sed -n 's/.*Depends: xen-hypervisor-\([0-9.]*\)-amd64.*/\1/p' | head -n 1)
kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
libraries='libxencall1 libxendevicemodel1 libxenevtchn1 libxenforeignmemory1 libxengnttab1 libxenhypfs1 libxenstore4 libxentoolcore1 libxentoollog1 libyajl2'

rm -rf packages unpacked kernel disk
mkdir packages unpacked kernel disk
# shellcheck disable=SC2086 # words on purpose
(cd packages && apt-get -qq -o APT::Sandbox::User=root download $libraries "libxenmisc$version" \
    "xen-hypervisor-$version-amd64" "xen-utils-$version" xen-utils-common xenstore-utils qemu-system-xen seabios "$kernel")
for package in packages/*.deb; do
    case $package in
    packages/linux-image-*) dpkg-deb -x "$package" kernel ;;
    *) dpkg-deb -x "$package" unpacked ;;
    esac
done
gzip -dc "unpacked/boot/xen-$version-amd64.gz" >xen.elf
cp kernel/boot/vmlinuz-* vmlinuz

# The RAM disk: programs, the objects that they load, QEMU's firmware, the kernel's modules for Xen and taps.
library=usr/lib/x86_64-linux-gnu
tools=unpacked/usr/lib/xen-$version
mkdir -p disk/bin disk/modules disk/lib disk/lib64 disk/usr/lib disk/usr/libexec disk/usr/share/qemu disk/$library
ln -s "../$library" disk/lib/x86_64-linux-gnu
cp "$(command -v busybox)" disk/bin/busybox
cp -r "$tools" disk/usr/lib/
rm -f disk/usr/lib/xen-*/boot/xen-shim*
ln -s "xen-$version/bin" disk/usr/lib/xen
cp unpacked/usr/libexec/xen-qemu-system-i386 disk/usr/libexec/
cp -a unpacked/$library/*.so* disk/$library/
for program in "$tools"/bin/xl "$tools"/bin/xenstored "$tools"/bin/xenconsoled "$tools"/bin/xen-init-dom0 \
    "$tools"/bin/libxl-save-helper unpacked/usr/libexec/xen-qemu-system-i386; do
    LD_LIBRARY_PATH=$PWD/unpacked/$library ldd "$program" || true
done | tr ' \t' '\n\n' | grep '^/' | sort -u | while read -r object; do
    case $object in
    "$PWD"/*) ;;
    /lib64/*) cp -L "$object" disk/lib64/ ;;
    *) cp -L "$object" disk/$library/ ;;
    esac
done
cp -rL unpacked/usr/share/seabios disk/usr/share/
# QEMU's own files, of the QEMU that is installed.
cp -rL /usr/share/qemu/keymaps /usr/share/qemu/*.bin disk/usr/share/qemu/
release=$(basename kernel/boot/vmlinuz-* | sed 's/^vmlinuz-//')
[ -d kernel/lib/modules ] || ln -s usr/lib kernel/lib
depmod -b kernel "$release"
for module in xen-privcmd xen-evtchn xen-gntdev xen-gntalloc xenfs tun; do
    modprobe -S "$release" -d kernel -D "$module"
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' | while read -r file; do
    cp "$file" disk/modules/
    basename "$file" >>disk/modules/order
done
(cd disk && find . | cpio --quiet -o -H newc | gzip -1) >dom0.cpio.gz
rm -rf packages unpacked kernel disk
echo "xen: version $version, in $PWD"
