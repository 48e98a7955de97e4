#!/bin/busybox sh
# First process of a guest that runs a complete Debian: copies the files under test into its root file system and hands
# over to systemd.

export PATH=/usr/sbin:/usr/bin

mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
# The kernel detects disks while this script already runs.
for _ in $(seq 100); do
    disk=$(findfs LABEL=pinscope-root 2>/dev/null) && break
    sleep 0.1
done
mkdir /new
if ! mount -t ext4 "$disk" /new; then
    echo "no disk is called pinscope-root" >/dev/ttyS1
    reboot -f
fi
cp -a /usr/lib/debian/. /new
umount /proc /sys
mount -o move /dev /new/dev
exec switch_root -c /dev/console /new /sbin/init
