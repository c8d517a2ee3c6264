#!/bin/sh
# The program of the lab's images: it does what /etc/lab says. Given a command,
# it runs that instead, unless ECS runs it: then the command is only for show.
. /etc/lab/settings
[ $# -eq 0 ] || [ -n "$TASK" ] || exec "$@"

rm -f /run/started
finish() {
	trap '' TERM INT
	pause "$STOP"
	exit "$STOP_CODE"
}
trap finish TERM INT
trap 'exit "$(cat /run/code)"' USR1
uptime_ms >/run/started # from here on it listens to signals
[ ! -e /etc/lab/log ] || cat /etc/lab/log
for port in $PORTS; do
	nc -ll -p "$port" -e /bin/answer &
done
if [ -n "$EXIT$OOM" ]; then
	pause "$AFTER"
	[ -z "$OOM" ] || exec tail /dev/zero
	exit "$EXIT"
fi
while :; do pause 3600000; done
