#!/bin/sh
# Writes a block of a disk, and reads it back past the machine's own cache: exercise.sh DISK
set -eu
random=$(mktemp)
dd if=/dev/urandom of="$random" bs=512 count=1 2>&1
dd if="$random" of="$1" bs=512 seek=1000 oflag=direct 2>&1
dd if="$1" bs=512 skip=1000 count=1 iflag=direct 2>/dev/null | cmp - "$random"
echo "$(blockdev --getsz "$1") blocks"
