#!/bin/sh
# The last thing that starts in a guest that is a Debian: runs /script, says how that ended, and switches off.
#
# As in other guests, the script's output goes to the second serial port, and no default of the kernel is changed.

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
# Waits until all of it is out.
stty -F /dev/ttyS1 raw
# What is on the disk is thrown away: there is nothing to be saved.
systemctl reboot --force --force
