# Prints a case's JSON line, or an error line.
case_of() {
    guest bench --case "$1" --warmup "$2" --n "$3" 2>/tmp/complaint || echo "bench-error $1: $(cat /tmp/complaint)"
}

# Waits until "$@" succeeds, for at most a minute, and only while the process $watcher runs.
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

# Replaces this shell with "$@" at the lowest priority. (This busybox has no nice.)
at_lowest_priority() { exec sh -c 'renice -n 19 -p $$ >/dev/null && exec "$@"' sh "$@"; }

served() { wget -q -O "$1" http://127.0.0.1:9757/metrics 2>/dev/null; }

under_daemon() {
    pinscope daemon --attach "$1" >/dev/null 2>/tmp/messages &
    watcher=$!
    until_ready served /dev/null || return
    echo "bench-peak $(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$watcher/status")"
    echo "bench-resident $(resident)"
    cases
    served /tmp/metrics
    echo "bench-seen $(sed -n 's/^pinscope_entries_total{hook="register"} //p' /tmp/metrics)"
    itself
    crowd
    end_watcher
    starts "$1"
}

resident() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$watcher/status"; }

# CPU time of all threads in hundredths of a second. The resolution suffices for many scrapes together.
cpu() { sed 's/.*) //' "/proc/$watcher/stat" | { read -r _ _ _ _ _ _ _ _ _ _ _ user system _ && echo $((user + system)); }; }

waits() { cat /proc/$watcher/task/*/status | awk '/^voluntary_ctxt_switches:/ { sum += $2 } END { print sum }'; }

# Mean CPU time of a scrape in nanoseconds, over "$1" scrapes, compressed as Prometheus requests them.
scraped() {
    before=$(cpu)
    scrapes=0
    while [ $scrapes -lt "$1" ]; do
        wget -q -O /tmp/metrics.gz --header 'Accept-Encoding: gzip' http://127.0.0.1:9757/metrics || echo "bench-error a scrape failed"
        scrapes=$((scrapes + 1))
    done
    spent=$((($(cpu) - before) * 10000000 / scrapes))
    gunzip -t /tmp/metrics.gz || echo "bench-error a scrape is not compressed"
    echo $spent
}

# The daemon's own costs: CPU time of 200 scrapes, memory after them, and wake-ups without any activity. The pause lets
# the thread of the last scrape end, whose wake-up must not be counted.
itself() {
    echo "bench-scrape-ns $(scraped 200)"
    sleep 15
    echo "bench-scraped-resident $(resident)"
    before=$(waits)
    sleep 20
    echo "bench-wakeups $(($(waits) - before))"
}

# The same with more workloads than the default limit for series of their own.
crowd() {
    mkdir -p /sys/fs/cgroup
    grep -q ' /sys/fs/cgroup cgroup2 ' /proc/mounts || mount -t cgroup2 cgroup2 /sys/fs/cgroup
    workload=0
    while [ $workload -lt 210 ]; do
        mkdir "/sys/fs/cgroup/bench$workload.service"
        sh -c 'echo $$ >"$1/cgroup.procs" && exec guest gen --out /tmp/account storm --threads 1 --count 4' sh \
            "/sys/fs/cgroup/bench$workload.service" >/dev/null || echo "bench-error workload $workload failed"
        workload=$((workload + 1))
    done
    served /tmp/metrics
    workloads=$(sed -n 's/^pinscope_workloads //p' /tmp/metrics)
    [ "$workloads" = 200 ] || echo "bench-error ${workloads:-no} workloads, and not 200"
    echo "bench-crowded-scrape-ns $(scraped 100)"
    sleep 15
    echo "bench-crowded-resident $(resident)"
}

# Time from exec to ready, next to that of a minimal program of the same library.
starts() {
    guest start --what empty 2>/tmp/complaint || echo "bench-error start of an empty program: $(cat /tmp/complaint)"
    PINSCOPE=/usr/bin/pinscope guest start --what daemon --attach "$1" 2>/tmp/complaint || echo "bench-error start: $(cat /tmp/complaint)"
    parts_of_start "$1"
}

# Duration of each step of a start (with logging, which costs a little more), and the instructions that the verifier
# processed: for the daemon, and for sessions with all options.
parts_of_start() {
    pinscope daemon -vv --attach "$1" --listen 127.0.0.1:9759 >/tmp/start 2>&1 &
    watcher=$!
    until_ready grep -q ' serving ' /tmp/start || { echo "bench-error start: $(tail -n 3 /tmp/start)"; return; }
    end_watcher
    sed -n 's/^.* start: \(.*\), after \([0-9]*\) us$/bench-step \2 \1/p' /tmp/start
    pinscope report -vv --attach "$1" --locks --phases --duration 100ms >/dev/null 2>>/tmp/start || echo "bench-error report: $(tail -n 3 /tmp/start)"
    pinscope audit -vv --attach "$1" --duration 100ms >/dev/null 2>>/tmp/start || echo "bench-error audit: $(tail -n 3 /tmp/start)"
    grep -q ' verified: ' /tmp/start || echo "bench-error the log names no program that was verified"
    sed -n 's/^.* verified: \([a-z_0-9]*\): \([0-9]*\) instructions$/bench-verified \2 \1/p' /tmp/start
}

# The trace's output goes to a pipe, where it costs least. Its first line shows that it has attached, its last line
# holds the counts. Trace and reader run at the lowest priority on the only CPU, so that printing does not add to the
# times of registrations; the ring buffer is large enough to hold all records in the meantime.
under_trace() {
    rm -f /tmp/lines /tmp/started /tmp/last
    mkfifo /tmp/lines
    at_lowest_priority sh -c 'read -r line && echo "$line" >/tmp/started; tail -n 1 >/tmp/last' </tmp/lines &
    reader=$!
    at_lowest_priority pinscope trace --json --buffer 512 --attach "$1" >/tmp/lines 2>/tmp/messages &
    watcher=$!
    until_ready test -s /tmp/started || return
    cases
    end_watcher
    wait $reader
    echo "bench-trace $(cat /tmp/last)"
}

# bpftrace's compiler writes to /dev/fd, which does not exist in these guests.
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
