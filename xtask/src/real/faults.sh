#!/bin/sh
# What a user sees of a disk that fails: faults.sh CASBLOCK TARGET, the disk of scsi_debug. Ends with "all as said" if all
# was as expected.
set -eu
casblock=$1
target=$2
driver=/sys/bus/pseudo/drivers/scsi_debug

fail() {
    echo "not as said: $*"
    exit 1
}

# Runs a command, and fails unless its exit status is the expected one.
expect() {
    expected=$1
    shift
    status=0
    "$casblock" "$@" >"$TMPDIR/out" 2>"$TMPDIR/err" || status=$?
    cat "$TMPDIR/out" "$TMPDIR/err"
    [ "$status" = "$expected" ] || fail "$* ended with $status, not $expected"
}

# How many commands the disk was sent.
count() {
    sed -n 's/^cmnd_count=\([0-9]*\),.*/\1/p' /proc/scsi/scsi_debug/*
}

# Blocks 4660 to 4669 cannot be read: an error, and neither a miscompare nor success.
echo 2 >$driver/opts
expect 1 read "$target" 4660
grep -q 'MEDIUM ERROR' "$TMPDIR/err" || fail "the medium error"
expect 0 read "$target" 4670
echo 0 >$driver/opts
expect 0 read "$target" 4660

# A compare-and-write that is not answered: nobody can tell, and that is said. It is the last of the commands that `caw` sends
# if all goes well.
echo 1 >$driver/statistics
before=$(count)
expect 0 caw "$target" 100 --expect zero --new zero
sent=$(($(count) - before))
[ "$sent" -gt 2 ] || fail "caw sent $sent commands"
echo 4 >$driver/opts
echo "$sent" >$driver/every_nth
expect 3 caw "$target" 100 --expect zero --new hex:01
echo 0 >$driver/every_nth
echo 0 >$driver/opts
grep -q 'not known: block 100 may have been written' "$TMPDIR/out" || fail "that it is not known"
grep -q 'COMPARE AND WRITE of block 100: timed out' "$TMPDIR/out" || fail "why it is not known"
# This disk forgets the commands it does not answer.
expect 0 caw "$target" 100 --expect zero --new zero
echo "all as said"
