# What this container is to do: as its image says (image), for this task
# (task, in which lab time has become real time), and by what was done to it
# since (now). All times are milliseconds.
uptime_ms() {
	read -r up idle </proc/uptime
	echo "${up%.*}${up#*.}0"
}
age_ms() { echo $(($(uptime_ms) - $(cat /run/started))); }
# A trap runs when sleep ends, unless sleep is in the background.
pause() {
	sleep "$(($1 / 1000)).$(printf %03d $(($1 % 1000)))" &
	wait $!
}
for file in image task now; do
	[ ! -e "/etc/lab/$file" ] || . "/etc/lab/$file"
done
