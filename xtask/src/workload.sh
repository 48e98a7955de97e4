#!/bin/sh
# Real registrations: fio with fixed buffers, once for each kind of memory that it supports. It reads a file in the
# current directory, which should be on a disk's file system.
#
# A kind that the kernel refuses is part of the picture: every kernel refuses a shared, writable mapping of a file on a
# disk's file system (with EFAULT since 6.5), and kernels before 6.5 refuse private mappings of files too.

fio_with() {
    echo "workload: fio --mem=$1" >&2
    if ! complaint=$(fio --name=fixed --ioengine=io_uring --fixedbufs=1 --mem="$1" --filename=data --size=8m --bs="$2" \
        --iodepth="$3" --rw=randread --runtime=1 --time_based --thread --minimal 2>&1); then
        why=$(echo "$complaint" | sed -n 's/.*error=//p' | head -n 1)
        echo "workload: fio --mem=$1 was refused: ${why:-fio does not say why}" >&2
    fi
}

dd if=/dev/zero of=data bs=1M count=8 2>/dev/null
fio_with malloc 64k 16
fio_with mmap 256k 8
fio_with mmap:private 64k 8
fio_with mmapshared:shared 64k 8
fio_with mmaphuge 64k 8
fio_with shm 64k 8
rm -f data private shared
exit 0
