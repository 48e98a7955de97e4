#!/bin/sh
# Last unit to start in a guest that runs a complete Debian: runs /script, prints its exit code, and powers off.
#
# As in other guests, the script's output goes to the second serial port, and the kernel's defaults are unchanged.

exec </dev/null >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 raw -echo

mkdir -p /mnt/huge /mnt/ext4 /mnt/ramfs
mount -t ramfs ramfs /mnt/ramfs
mount -t hugetlbfs huge /mnt/huge
echo 64 >/proc/sys/vm/nr_hugepages

cd /root
sh /script
code=$?
echo "PINSCOPE-GUEST-EXIT $code"
# Waits until all output is written.
stty -F /dev/ttyS1 raw
# Data on the disk is discarded, so there is nothing to save.
systemctl reboot --force --force
