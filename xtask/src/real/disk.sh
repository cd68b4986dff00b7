#!/bin/sh
# What a user does with a disk: disk.sh CASBLOCK TARGET. Ends with "all as said" if all was as expected.
set -eu
casblock=$1
target=$2

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

# Whoever has something on a disk keeps it.
printf 'LUKS\272\276' | "$casblock" write "$target" 0 --pad >"$TMPDIR/out" || fail "writing a mark"
expect 1 caw "$target" 100 --expect hex:0102 --new zero
grep -q 'a LUKS volume' "$TMPDIR/err" || fail "what it holds"
expect 1 conformance "$target"
expect 0 caw "$target" 100 --expect hex:0102 --new zero --i-know-what-is-on-it
head -c 512 /dev/zero | "$casblock" write "$target" 0 --i-know-what-is-on-it >"$TMPDIR/out" || fail "taking the mark away"

# Hosts, a lease, and a command that runs while it is held.
expect 0 cluster init "$target" --hosts 4 --leases 4 --interval 100ms --io-timeout 1s --stale 2s
expect 1 cluster init "$target" --hosts 4
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
