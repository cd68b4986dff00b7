#!/bin/sh
# The first process inside User-Mode Linux: makes a disk with each of two SCSI targets, runs the programs it was given,
# and halts.
#
# The machine's root is the host's, read-only. This file lies in the run folder. The other files there are
#
#   environment    BUSYBOX, MODULES (the folder with modules.dep) and RUN (this folder), as lines for the shell
#   steps/N.sh     what to run, from N = 1; LIO and SCSI_DEBUG are the disks' paths
#   out/           where results go: for each step N.started, N.stdout, N.stderr and N.status; `trouble` if the disks
#                  could not be made; and at the end `done`
#
# It says little on the console: that is where the kernel speaks. If this script ended, the kernel would panic, as
# process 1 must not; so each way out of it halts.

. "${0%/*}/environment"

# In memory, where a folder can be made: the host's root is read-only.
HERE=/run/casblock
OUT=$HERE/out

LIO_BYTES=67108864
SCSI_DEBUG_MB=64

halt() {
    "$BUSYBOX" sync
    "$BUSYBOX" poweroff -f
}

# The disks could not be made: says why, and ends.
trouble() {
    echo "init: $*"
    echo "$*" >"$OUT/trouble"
    halt
}

# The kernel itself has mounted devtmpfs on /dev: a disk's node is there as soon as the disk is.
mount_all() {
    "$BUSYBOX" mount -t proc none /proc
    "$BUSYBOX" mount -t sysfs none /sys
    "$BUSYBOX" mount -t tmpfs none /run
    "$BUSYBOX" mkdir -p "$OUT" "$HERE/tmp" "$HERE/configfs" "$HERE/bin"
    # With `sync`, a result is on the host as soon as it was written, whatever becomes of this machine.
    if ! "$BUSYBOX" mount -t hostfs -o "sync,$RUN/out" none "$OUT"; then
        echo "init: cannot mount $RUN/out"
        halt
    fi
    # What the host has not got, busybox has. It comes last.
    "$BUSYBOX" --install -s "$HERE/bin"
    export PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$HERE/bin"
    export TMPDIR="$HERE/tmp" HOME="$HERE/tmp"
    # What programs expect, and the kernel does not make.
    mkdir -p /dev/shm
    "$BUSYBOX" mount -t tmpfs none /dev/shm
    ln -s /proc/self/fd /dev/fd
}

# Loads a module: load NAME [PARAMETER=VALUE]... What it depends on comes first: the last that its line of modules.dep
# names, before the others.
load() {
    module=$1
    shift
    line=$(grep "/$module\.ko:" "$MODULES/modules.dep") || trouble "there is no module $module"
    first=
    for file in ${line#*:}; do
        first="$file $first"
    done
    for file in $first; do
        insert "$file"
    done
    insert "${line%%:*}" "$@"
}

# Loads a module's file, unless it is loaded.
insert() {
    name=$(basename "$1" .ko | tr - _)
    [ -d "/sys/module/$name" ] && return
    path=$MODULES/$1
    shift
    "$BUSYBOX" insmod "$path" "$@" || trouble "cannot load the module $name"
}

# A disk of LIO: a file in memory, behind tcm_loop, which is a SCSI adapter that leads to LIO.
make_lio() {
    "$BUSYBOX" mount -t configfs none "$HERE/configfs" || trouble "cannot mount configfs"
    core=$HERE/configfs/target/core/fileio_0/casblock
    loop=$HERE/configfs/target/loopback/naa.6001405000000001/tpgt_1
    {
        mkdir -p "$core" &&
            echo "fd_dev_name=$HERE/lio.img,fd_dev_size=$LIO_BYTES" >"$core/control" &&
            # Without a serial number, LIO has no vital product data pages.
            echo 6e5b2c1a-0000-4000-8000-000000000001 >"$core/wwn/vpd_unit_serial" &&
            echo 1 >"$core/enable" &&
            mkdir -p "$loop" &&
            echo naa.6001405000000002 >"$loop/nexus" &&
            mkdir -p "$loop/lun/lun_0" &&
            ln -s "$core" "$loop/lun/lun_0/casblock"
    } || trouble "cannot make a disk of LIO"
}

# The path of the disk of a vendor: disks are found in the background, in any order.
disk_of() {
    tries=0
    while [ $tries -lt 100 ]; do
        for disk in /sys/block/sd*; do
            [ -e "$disk/device/vendor" ] || continue
            read -r vendor <"$disk/device/vendor"
            if [ "$vendor" = "$1" ] && [ -b "/dev/${disk##*/}" ]; then
                echo "/dev/${disk##*/}"
                return
            fi
        done
        tries=$((tries + 1))
        "$BUSYBOX" sleep 0.1
    done
    return 1
}

run_steps() {
    step=1
    while [ -e "$RUN/steps/$step.sh" ]; do
        : >"$OUT/$step.started"
        sh "$RUN/steps/$step.sh" </dev/null >"$OUT/$step.stdout" 2>"$OUT/$step.stderr"
        echo $? >"$OUT/$step.status"
        step=$((step + 1))
    done
}

mount_all
for module in sd_mod sg target_core_file tcm_loop; do
    load $module
done
# No delay: a command is answered before the call that sends it returns.
load scsi_debug dev_size_mb=$SCSI_DEBUG_MB delay=0
make_lio
LIO=$(disk_of LIO-ORG) || trouble "the disk of LIO did not show up"
SCSI_DEBUG=$(disk_of Linux) || trouble "the disk of scsi_debug did not show up"
export LIO SCSI_DEBUG
run_steps
: >"$OUT/done"
halt
