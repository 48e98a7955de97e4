#!/bin/busybox sh
# First process of a guest: mounts what programs expect, runs /script, prints its exit code, and powers off.
#
# tracefs, debugfs, bpffs and securityfs are not mounted, and the kernel's defaults are unchanged: pinscope has to cope
# with a machine as it finds it. The kernel's messages go to the first serial port, the script's output to the second.

export PATH=/usr/sbin:/usr/bin HOME=/root TMPDIR=/tmp TERM=dumb LANG=C.UTF-8

mount -t devtmpfs dev /dev
exec </dev/null >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 raw -echo

mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/shm /dev/pts /mnt/huge /mnt/ext4 /mnt/ramfs /run
mount -t devpts pts /dev/pts
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=0755 run /run
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t ramfs ramfs /mnt/ramfs
mount -t hugetlbfs huge /mnt/huge
echo 64 >/proc/sys/vm/nr_hugepages
if [ -b /dev/nvme0n1 ]; then
    mount -t ext4 /dev/nvme0n1 /mnt/ext4
fi
ip link set lo up
hostname guest

cd /root
sh /script
code=$?
echo "PINSCOPE-GUEST-EXIT $code"
# Waits until all output is written.
stty -F /dev/ttyS1 raw
reboot -f
