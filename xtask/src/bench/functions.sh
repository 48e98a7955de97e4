# A case's line of JSON, or why there is none.
case_of() {
    guest bench --case "$1" --warmup "$2" --n "$3" 2>/tmp/complaint || echo "bench-error $1: $(cat /tmp/complaint)"
}

# Waits until "$@" succeeds, at most a minute, and as long as the process $watcher runs.
until_ready() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        if [ $tries -gt 120 ] || ! kill -0 "$watcher" 2>/dev/null; then
            echo "bench-error not attached: $(head -n 5 /tmp/messages | tr '\n' ' ')"
            kill -KILL "$watcher" 2>/dev/null
            wait "$watcher"
            return 1
        fi
        sleep 0.5
    done
}

end_watcher() {
    kill -INT "$watcher"
    wait "$watcher"
    code=$?
    [ $code = 0 ] || echo "bench-error exit code $code: $(head -n 5 /tmp/messages | tr '\n' ' ')"
}

# Becomes "$@", which gets the CPU when nobody else wants it. (This busybox has no nice.)
humbly() { exec sh -c 'renice -n 19 -p $$ >/dev/null && exec "$@"' sh "$@"; }

served() { wget -q -O "$1" http://127.0.0.1:9757/metrics 2>/dev/null; }

under_daemon() {
    pinscope daemon --attach "$1" >/dev/null 2>/tmp/messages &
    watcher=$!
    until_ready served /dev/null || return
    echo "bench-resident $(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' /proc/$watcher/status)"
    cases
    served /tmp/metrics
    echo "bench-seen $(sed -n 's/^pinscope_entries_total{hook="register"} //p' /tmp/metrics)"
    end_watcher
}

# Its lines go where they cost least; the first says that it has attached, the last what it counted. The only CPU is the
# cases' first, so that a registration is not timed with the printing of those before it, and the ring buffer is large
# enough for all the records meanwhile.
under_trace() {
    rm -f /tmp/lines /tmp/started /tmp/last
    mkfifo /tmp/lines
    humbly sh -c 'read -r line && echo "$line" >/tmp/started; tail -n 1 >/tmp/last' </tmp/lines &
    reader=$!
    humbly pinscope trace --json --buffer 512 --attach "$1" >/tmp/lines 2>/tmp/messages &
    watcher=$!
    until_ready test -s /tmp/started || return
    cases
    end_watcher
    wait $reader
    echo "bench-trace $(cat /tmp/last)"
}

# Its compiler writes to /dev/fd, which nothing makes here.
under_bpftrace() {
    [ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
    mkdir -p /sys/kernel/tracing
    grep -q ' /sys/kernel/tracing tracefs ' /proc/mounts || mount -t tracefs tracefs /sys/kernel/tracing
    bpftrace -B line "/root/$1.bt" >/tmp/printed 2>/tmp/messages &
    watcher=$!
    until_ready grep -q '^attached' /tmp/printed || return
    cases
    end_watcher
    grep -q '^@pin\[guest\]' /tmp/printed || echo "bench-error bpftrace saw nothing: $(tail -n 5 /tmp/printed | tr '\n' ' ')"
}
