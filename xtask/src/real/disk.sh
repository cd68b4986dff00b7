#!/bin/sh
# What a user does with a disk: disk.sh CASBLOCK TARGET. Ends with "all as said" if all was as expected.
set -eu
casblock=$1
target=$2
disk=${target#scsi:}

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

expect 0 caw "$target" 100 --expect zero --new hex:01
expect 14 caw "$target" 100 --expect zero --new hex:02
grep -q 'block 100 differs at offset 0' "$TMPDIR/out" || fail "the offset"
expect 0 caw "$target" 100 --expect hex:01 --new hex:0102 --durable
expect 0 read "$target" 100 --json
grep -q '"hex":"0102' "$TMPDIR/out" || fail "what was written"
expect 1 read "$target" 131072
expect 1 word get "$target" 0
grep -q 'heartbeat words' "$TMPDIR/err" || fail "no words"
expect 0 info "$target"
expect 0 sync "$target"

# The disk's generic device will do as well.
for generic in "/sys/block/${disk##*/}"/device/scsi_generic/*; do
    expect 14 caw "scsi:/dev/${generic##*/}" 100 --expect zero --new hex:03
    expect 0 probe "scsi:/dev/${generic##*/}"
    grep -q 'works: tried out' "$TMPDIR/out" || fail "the generic device"
done

# A command that would write is refused for this reason.
refused() {
    expect 1 caw "$target" 100 --expect hex:0102 --new zero
    grep -q "$1; nothing was written" "$TMPDIR/err" || fail "refused as it $1"
}

# Whoever has something on a disk keeps it.
printf 'LUKS\272\276' | "$casblock" write "$target" 0 --pad >"$TMPDIR/out" || fail "writing a mark"
expect 1 caw "$target" 100 --expect hex:0102 --new zero
grep -q 'a LUKS volume' "$TMPDIR/err" || fail "what it holds"
expect 1 conformance "$target"
# Not even what cannot succeed is tried on it.
expect 1 probe "$target"
grep -q 'not tried: it is in use' "$TMPDIR/out" || fail "no trial on a disk in use"
expect 0 probe "$target" --i-know-what-is-on-it
expect 0 caw "$target" 100 --expect hex:0102 --new hex:0102 --i-know-what-is-on-it

# Partitions: in their table, and as the kernel has them.
{
    head -c 450 /dev/zero
    printf '\203\000\000\000\000\010\000\000\000\020\000\000'
    head -c 48 /dev/zero
    printf '\125\252'
} | "$casblock" write "$target" 0 --i-know-what-is-on-it >"$TMPDIR/out" || fail "writing a partition table"
refused 'holds a DOS partition table'
blockdev --rereadpt "$disk"
refused 'has partitions (.*1)'
head -c 512 /dev/zero | "$casblock" write "$target" 0 --i-know-what-is-on-it >"$TMPDIR/out" || fail "taking it away"
blockdev --rereadpt "$disk"

# A file system: mounted here, mounted where this process does not see it, and left there.
mke2fs -F "$disk" >"$TMPDIR/out" 2>&1 || fail "making a file system"
mkdir -p "$TMPDIR/mounted"
mount -o ro -t ext2 "$disk" "$TMPDIR/mounted"
refused "is mounted on $TMPDIR/mounted"
umount "$TMPDIR/mounted"
rm -f "$TMPDIR/is-mounted"
unshare -m sh -c 'mount -o ro -t ext2 "$1" "$2/mounted" && : >"$2/is-mounted" && exec sleep 100' sh "$disk" "$TMPDIR" &
user=$!
while [ ! -e "$TMPDIR/is-mounted" ]; do
    kill -0 "$user" || fail "mounting it elsewhere"
    sleep 0.1
done
refused 'is in use: the kernel does not give it to a second user'
kill "$user"
wait "$user" || true
refused 'holds an ext2, ext3 or ext4 file system'
head -c 8388608 /dev/zero | "$casblock" write "$target" 0 --i-know-what-is-on-it >"$TMPDIR/out" || fail "taking all away"

# Hosts, a lease, and a command that runs while it is held.
expect 0 cluster init "$target" --hosts 4 --leases 4 --interval 100ms --io-timeout 1s --stale 2s
expect 1 cluster init "$target" --hosts 4
expect 1 cluster init "$target" --hosts 4 --i-know-what-is-on-it
# What is not for clusters is not for a cluster's disk.
expect 1 caw "$target" 100 --expect zero --new hex:01
grep -q 'records of a casblock cluster' "$TMPDIR/err" || fail "the cluster's mark"
expect 1 conformance "$target" --lba 1000
printf 'op,lba,length_bytes\nw,0,512\n' >"$TMPDIR/trace.csv"
expect 1 replay "$TMPDIR/trace.csv" "$target"
grep -q 'would be overwritten' "$TMPDIR/err" || fail "a replay"
expect 0 run --lease 2 "$target" -- sh -c 'echo "token $CASBLOCK_TOKEN"'
grep -q 'token 1' "$TMPDIR/out" || fail "the first token"
"$casblock" run --lease 2 "$target" -- sleep 100 &
holder=$!
sleep 1
expect 75 run --no-wait --lease 2 "$target" -- true
expect 0 cluster hosts "$target" --json
grep -q '"state":"alive"' "$TMPDIR/out" || fail "the holder lives"
kill -9 "$holder"
expect 0 run --wait 20s --lease 2 "$target" -- sh -c 'echo "token $CASBLOCK_TOKEN"'
grep -q 'token 3' "$TMPDIR/out" || fail "the token after the holder's death"
expect 0 cluster hosts "$target" --json
grep -q '"state":"fenced"' "$TMPDIR/out" || fail "the dead holder is fenced"

# One that is stopped for longer than the stale time, and goes on, ends its command, and does not take the lease back.
"$casblock" run --lease 3 "$target" -- sleep 100 &
holder=$!
sleep 1
kill -STOP "$holder"
expect 0 run --wait 20s --lease 3 "$target" -- sh -c 'echo "token $CASBLOCK_TOKEN"'
grep -q 'token 2' "$TMPDIR/out" || fail "the token after the holder was stopped"
kill -CONT "$holder"
status=0
wait "$holder" || status=$?
[ "$status" -gt 128 ] || fail "who was stopped ended with $status, not with its command killed"
expect 0 run --no-wait --lease 3 "$target" -- true
echo "all as said"
